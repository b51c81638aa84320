"""Test URLs of TLS servers, Sentinels and clusters with real servers and both runners."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import redis.asyncio
import redis.cluster
import trustme

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import new_tasks, views
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError, ConfigurationError
from taskq_core.wire import Keys
from tests.conformance.test_connections import blocking, coroutines, endpoint_of, lead_a_life
from tests.redis_server import RedisServer, TlsFiles, start_cluster

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("long_connect_timeout")]


async def replica_joined(replica: RedisServer, sentinel: RedisServer) -> None:
    """Wait until a replica has its first copy and a Sentinel knows the replica."""
    deadline = time.monotonic() + 30
    while replica.client.info("replication")["master_link_status"] != "up" or not sentinel.command(
        "SENTINEL", "REPLICAS", RedisServer.MASTER_NAME
    ):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)  # the replica is joining


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    server = authority.issue_cert("localhost")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    client = authority.issue_cert("worker@example.org")
    client.private_key_pem.write_to_path(folder / "client.key")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    return TlsFiles(
        certificate=folder / "server.pem", key=folder / "server.pem", authority=folder / "ca.pem", ask_client=False
    )


@pytest.fixture(scope="module")
def server(files: TlsFiles) -> Iterator[RedisServer]:
    with RedisServer(tls=files, password="secret") as server:
        yield server


class TestTls:
    def url(self, server: RedisServer, *, host: str = "localhost", authority: str = "ca.pem") -> str:
        assert server.tls is not None
        ca = server.tls.authority.parent / authority
        return f"rediss://:secret@{host}:{server.port}/0?ssl_ca_certs={ca}"

    def test_a_verified_server(self, server: RedisServer) -> None:
        server.flushall()
        lead_a_life(self.url(server))

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [({"authority": "other-ca.pem"}, "certificate verify failed"), ({"host": "127.0.0.1"}, "IP address mismatch")],
        ids=["another authority", "another host name"],
    )
    async def test_a_server_with_an_invalid_certificate_gets_no_data(
        self, server: RedisServer, changed: dict[str, str], reason: str
    ) -> None:
        url = self.url(server, **changed)
        with blocking(url) as runner, pytest.raises(BrokerUnavailableError, match=reason) as refused:
            runner.run(views.ping())
        async with coroutines(url) as lanes:
            with pytest.raises(BrokerUnavailableError, match=r"certificate verify failed|mismatch") as arefused:
                await lanes.run(views.ping())

        assert not refused.value.may_have_happened
        assert not arefused.value.may_have_happened
        assert "secret" not in f"{refused.value}{arefused.value}"

    async def test_a_missing_file_of_the_certificate_authority(self, server: RedisServer) -> None:
        url = self.url(server, authority="none.pem")
        with blocking(url) as runner, pytest.raises(BrokerUnavailableError, match="cannot reach"):
            runner.run(views.ping())
        async with coroutines(url) as lanes:
            with pytest.raises(BrokerUnavailableError, match="cannot reach"):
                await lanes.run(views.ping())

    def test_a_client_with_a_certificate(self, files: TlsFiles) -> None:
        asking = TlsFiles(certificate=files.certificate, key=files.key, authority=files.authority, ask_client=True)
        folder = files.authority.parent
        with RedisServer(tls=asking, password="secret") as server:
            url = self.url(server)
            with blocking(url) as runner, pytest.raises(BrokerUnavailableError):
                runner.run(views.ping())
            lead_a_life(f"{url}&ssl_certfile={folder}/client.pem&ssl_keyfile={folder}/client.key")

    @pytest.fixture
    def by_address(self, authority: trustme.CA, files: TlsFiles, tmp_path: Path) -> TlsFiles:
        """Return TLS files for a server's IP address, because Sentinels and clusters report addresses."""
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        return replace(files, certificate=tmp_path / "server.pem", key=tmp_path / "server.pem")

    def test_the_primary_that_sentinels_name(self, by_address: TlsFiles) -> None:
        with (
            RedisServer(tls=by_address, password="secret") as primary,
            RedisServer(tls=by_address, sentinel_of=primary) as sentinel,
        ):
            hosts = f"127.0.0.1:{sentinel.port}/{RedisServer.MASTER_NAME}"
            lead_a_life(f"rediss+sentinel://:secret@{hosts}?ssl_ca_certs={by_address.authority}")
            stranger = f"rediss+sentinel://:secret@{hosts}?ssl_ca_certs={by_address.authority.parent}/other-ca.pem"
            with blocking(stranger) as runner, pytest.raises(BrokerUnavailableError, match="verify failed"):
                runner.run(views.ping())

    async def test_a_cluster(self, by_address: TlsFiles) -> None:
        with start_cluster(nodes=1, tls=by_address, password="secret") as (node,):
            url = f"rediss+cluster://:secret@127.0.0.1:{node.port}"
            await asyncio.to_thread(lead_a_life, f"{url}?ssl_ca_certs={by_address.authority}")

            stranger = f"{url}?ssl_ca_certs={by_address.authority.parent}/other-ca.pem"
            with blocking(stranger) as runner, pytest.raises(BrokerUnavailableError):
                runner.run(views.ping())
            async with coroutines(stranger) as lanes:
                with pytest.raises(BrokerUnavailableError):
                    await lanes.run(views.ping())

    def test_a_tls_port_does_not_respond_to_plain_text(self, server: RedisServer) -> None:
        with (
            blocking(f"redis://:secret@localhost:{server.port}/0", timeout_s=1) as runner,
            pytest.raises(BrokerUnavailableError),
        ):
            runner.run(views.ping())

    def test_an_existing_redis_client_keeps_its_certificate_checks(self, server: RedisServer) -> None:
        assert server.tls is not None
        server.flushall()
        ca = str(server.tls.authority)
        for kind in (redis.Redis, redis.asyncio.Redis):
            lead_a_life(kind(host="localhost", port=server.port, password="secret", ssl=True, ssl_ca_certs=ca))
            server.flushall()
            stranger = kind(host="127.0.0.1", port=server.port, password="secret", ssl=True, ssl_ca_certs=ca)
            with blocking(stranger) as runner, pytest.raises(BrokerUnavailableError, match="mismatch"):
                runner.run(views.ping())


@pytest.fixture(scope="module")
def primary() -> Iterator[RedisServer]:
    with RedisServer(tcp=True, password="secret") as server:
        yield server


@pytest.fixture(scope="module")
def sentinel(primary: RedisServer) -> Iterator[RedisServer]:
    with RedisServer(sentinel_of=primary) as server:
        yield server


class TestSentinel:
    def url(self, sentinel: RedisServer, master: str = RedisServer.MASTER_NAME) -> str:
        with RedisServer(tcp=True) as gone:
            dead = gone.port
        return f"redis+sentinel://:secret@127.0.0.1:{dead},127.0.0.1:{sentinel.port}/{master}?db=1"

    def test_the_primary_is_found_without_one_of_the_sentinels(
        self, primary: RedisServer, sentinel: RedisServer
    ) -> None:
        primary.flushall()
        lead_a_life(self.url(sentinel))

    def test_an_unknown_name(self, sentinel: RedisServer) -> None:
        with blocking(self.url(sentinel, "nobody")) as runner, pytest.raises(BrokerUnavailableError) as refused:
            runner.run(views.ping())

        assert not refused.value.may_have_happened
        assert "secret" not in str(refused.value)

    def test_a_runner_on_several_event_loops_in_turn(self, primary: RedisServer, sentinel: RedisServer) -> None:
        endpoint = endpoint_of(self.url(sentinel))
        runner = AsyncRunner(endpoint, timeout_s=30)

        async def once() -> bool:
            answer = await runner.run(views.ping())
            await runner.aclose()
            return answer

        assert [asyncio.run(once()) for _ in range(3)] == [True, True, True]

    def test_a_first_call_with_a_short_timeout_does_not_shorten_later_ones(
        self, primary: RedisServer, sentinel: RedisServer
    ) -> None:
        with blocking(self.url(sentinel)) as runner:
            with suppress(BrokerUnavailableError):
                runner.run(views.ping(), patience_s=0.0001)

            assert runner.run(views.ping()) is True

    def test_a_password_of_the_sentinels_is_used(self, primary: RedisServer) -> None:
        with RedisServer(sentinel_of=primary, password="their secret") as guarded:
            url = f"redis+sentinel://:secret@127.0.0.1:{guarded.port}/{RedisServer.MASTER_NAME}"
            with blocking(f"{url}?sentinel_password=their%20secret") as runner:
                assert runner.run(views.ping()) is True
            with (
                blocking(f"{url}?sentinel_password=wrong") as runner,
                pytest.raises(BrokerAuthenticationError) as refused,
            ):
                runner.run(views.ping())

        assert "wrong" not in str(refused.value).replace("WRONGPASS", "")

    @pytest.mark.slow
    async def test_the_new_primary_is_found_after_a_failover(self) -> None:
        """Both runners keep their connection objects, and retry until their timeouts."""
        with (
            RedisServer(tcp=True) as first,
            RedisServer(tcp=True, replica_of=first) as second,
            RedisServer(sentinel_of=first) as sentinel,
        ):
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{RedisServer.MASTER_NAME}"
            sentinel.wait_for_primary(60)  # so that a short stall of the machine causes no early failover
            await replica_joined(second, sentinel)
            async with coroutines(url) as lanes:
                with blocking(url) as runner:
                    assert runner.run(new_tasks.register_queue("q", ["before"])) == 1
                    assert await lanes.run(new_tasks.register_queue("q", ["before-too"])) == 1
                    first.client.wait(1, 5000)
                    first.kill()
                    sentinel.wait_for_primary(0.5)

                    assert runner.run(new_tasks.register_queue("q", ["after"]), patience_s=30) in (0, 1)
                    assert await lanes.run(new_tasks.register_queue("q", ["after-too"]), patience_s=30) in (0, 1)

            assert second.client.smembers("q") == {b"before", b"before-too", b"after", b"after-too"}

    @pytest.mark.slow
    async def test_a_client_leaves_an_old_primary_that_does_not_know_about_the_failover(self) -> None:
        """After a planned failover the old primary accepts writes for ten seconds and then discards them."""
        with (
            RedisServer(tcp=True) as first,
            RedisServer(tcp=True, replica_of=first) as second,
            RedisServer(sentinel_of=first) as sentinel,
        ):
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{RedisServer.MASTER_NAME}"
            sentinel.wait_for_primary(60)  # so that a short stall of the machine causes no early failover
            await replica_joined(second, sentinel)
            endpoint = endpoint_of(url)
            lanes, runner = AsyncRunner(endpoint), SyncRunner(endpoint)
            await lanes.follow_primary()
            lanes_lane = lanes.new_pipeline()
            assert await lanes_lane.run(new_tasks.register_queue("q", ["lane"])) == 1
            assert await lanes.run(new_tasks.register_queue("q", ["before"])) == 1
            assert runner.run(new_tasks.register_queue("q", ["before-too"])) == 1
            sentinel.fail_over()

            deadline = time.monotonic() + 30
            while not endpoint.takeovers:
                assert time.monotonic() < deadline
                assert await lanes.follow_primary() > 0
                await asyncio.sleep(0.05)  # before the next check
            assert await lanes_lane.run(new_tasks.register_queue("q", ["lane-after"])) == 1
            assert await lanes.run(new_tasks.register_queue("q", ["after"])) == 1
            assert runner.run(new_tasks.register_queue("q", ["after-too"])) == 1

            assert first.command("ROLE")[0] == b"master", (
                "the old primary learned of the failover before the clients left it"
            )
            assert {b"lane-after", b"after", b"after-too"} <= second.client.smembers("q")
            assert not {b"lane-after", b"after", b"after-too"} & first.client.smembers("q")
            await lanes_lane.close()
            await lanes.aclose()
            runner.close()

    @pytest.mark.slow
    @pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])
    async def test_a_client_without_a_worker_follows_a_planned_failover(self, is_async: bool) -> None:
        """Once it has left, no acknowledged write is discarded with the old primary."""
        with (
            RedisServer(tcp=True) as first,
            RedisServer(tcp=True, replica_of=first) as second,
            RedisServer(sentinel_of=first) as sentinel,
        ):
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{RedisServer.MASTER_NAME}"
            sentinel.wait_for_primary(60)
            await replica_joined(second, sentinel)
            endpoint = endpoint_of(url)
            lanes, runner = AsyncRunner(endpoint), SyncRunner(endpoint)

            async def write(name: str) -> None:
                operation = new_tasks.register_queue("q", [name])
                await (lanes.run(operation) if is_async else asyncio.to_thread(runner.run, operation))

            await write("before")
            sentinel.fail_over()
            deadline = time.monotonic() + 30
            while not endpoint.takeovers:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            await write("after")

            assert first.command("ROLE")[0] == b"master", "the old primary learned of the failover before the client"
            assert b"after" in second.client.smembers("q")
            await lanes.aclose()
            runner.close()

    async def test_a_single_sentinel_is_not_trusted(self, primary: RedisServer) -> None:
        """A Sentinel that was cut off together with an old primary still reports that primary."""
        with (
            RedisServer(tcp=True, password="secret") as other,
            RedisServer(sentinel_of=primary) as first,
            RedisServer(sentinel_of=primary) as second,
            RedisServer(sentinel_of=other) as alone,
        ):
            hosts = ",".join(f"127.0.0.1:{each.port}" for each in (alone, first, second))
            endpoint = endpoint_of(f"redis+sentinel://:secret@{hosts}/{RedisServer.MASTER_NAME}")

            for _ in range(4):
                await endpoint.follow_primary()

            assert endpoint.takeovers == 0

    async def test_sentinels_that_disagree_or_do_not_respond_change_nothing(self, primary: RedisServer) -> None:
        with (
            RedisServer(tcp=True, password="secret") as other,
            RedisServer(sentinel_of=primary) as first,
            RedisServer(sentinel_of=other) as second,
        ):
            agreed = endpoint_of(f"redis+sentinel://:secret@127.0.0.1:{first.port}/{RedisServer.MASTER_NAME}")
            torn = endpoint_of(
                f"redis+sentinel://:secret@127.0.0.1:{first.port},127.0.0.1:{second.port}/{RedisServer.MASTER_NAME}"
            )
            await agreed.follow_primary()
            await torn.follow_primary()
            first.kill()
            await agreed.follow_primary()
            await torn.follow_primary()

            assert (agreed.takeovers, torn.takeovers) == (0, 0)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RedisServer]]:
    with start_cluster(password="secret") as nodes:
        yield nodes


class TestCluster:
    def test_queues_on_every_node(self, nodes: list[RedisServer]) -> None:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        url = f"redis+cluster://:secret@{hosts}"
        lead_a_life(url)

        with blocking(url) as runner:
            for number in range(12):
                queue = Keys().queue(f"q{number}")
                assert runner.run(new_tasks.enqueue(queue, [NewTask("a", b"m")], ReceiptSlot("t"))) == "1"
        counts = [len(node.client.keys("*}:t:a")) for node in nodes]
        assert sum(counts) == 12
        assert all(counts)

    async def test_no_node_is_reachable(self) -> None:
        with RedisServer(tcp=True) as gone:
            url = f"redis+cluster://:secret@127.0.0.1:{gone.port}"
        with blocking(url) as runner, pytest.raises(BrokerUnavailableError) as refused:
            runner.run(views.ping())
        async with coroutines(url) as lanes:
            with pytest.raises(BrokerUnavailableError) as arefused:
                await lanes.run(views.ping())

        assert not refused.value.may_have_happened
        assert not arefused.value.may_have_happened
        assert "secret" not in f"{refused.value}{arefused.value}"

    async def test_a_server_without_cluster_mode(self, redis_server: RedisServer) -> None:
        with RedisServer(tcp=True) as single:
            url = f"redis+cluster://127.0.0.1:{single.port}"
            with blocking(url) as runner, pytest.raises(BrokerUnavailableError):
                runner.run(views.ping())
            async with coroutines(url) as lanes:
                with pytest.raises(BrokerUnavailableError):
                    await lanes.run(views.ping())

    def test_an_existing_cluster_client_is_refused(self, nodes: list[RedisServer]) -> None:
        client = redis.cluster.RedisCluster(host="127.0.0.1", port=nodes[0].port, password="secret")
        with pytest.raises(ConfigurationError, match=r"give redis\+cluster://host:port instead"):
            endpoint_of(client)
        client.close()

    @pytest.mark.slow
    async def test_the_response_of_a_cancelled_call_is_not_used_for_another(self, nodes: list[RedisServer]) -> None:
        async with coroutines(f"redis+cluster://:secret@127.0.0.1:{nodes[0].port}") as runner:
            for number in range(150):
                call = asyncio.ensure_future(runner.run(views.list_queues(f"cancelled-{number}")))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                call.cancel()
                assert await runner.run(new_tasks.register_queue(f"key-{number}", ["a", "b"])) == 2
                await asyncio.gather(call, return_exceptions=True)
