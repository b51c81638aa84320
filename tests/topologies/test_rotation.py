"""Change passwords and certificates under load, by the steps in docs/how-to/set-up-redis.md. No task may be lost."""

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from redis.credentials import CredentialProvider

from taskq_core import EnqueueError, EnqueueUnknownError, TaskQ
from taskq_core.broker.operations import views
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer, TlsFiles
from tests.taskq_core.broker.test_roles import rules_of

pytestmark = pytest.mark.redis

PAGE = (Path(__file__).parents[2] / "docs/how-to/set-up-redis.md").read_text(encoding="utf-8")


def command_of(step: str) -> list[str]:
    """Return the words of the command in a step of the page."""
    found = re.search(rf"^\d\. {step}[^`]*`([^`]*)`", PAGE, re.MULTILINE)
    assert found is not None, step
    return found[1].split()


def write(path: Path, text: str | bytes) -> None:
    """Replace a file atomically, as the page says."""
    new = path.with_suffix(".new")
    new.write_bytes(text.encode() if isinstance(text, str) else text)
    os.replace(new, path)


class Load:
    """A worker, and a thread and a coroutine that enqueue, each with a separate queue application.

    Args:
        url: URL of Redis, as in the settings.
    """

    def __init__(self, url: Any) -> None:
        self.ran: list[str] = []
        self.acknowledged: list[str] = []
        self.in_doubt: list[str] = []
        self.failures: list[Exception] = []
        self._url = url
        self._is_over = threading.Event()

    async def __aenter__(self) -> "Load":
        self._app = TaskQ(self._url)

        @self._app.task(name="note")
        async def note(number: str) -> None:
            self.ran.append(number)

        self._worker = Worker(self._app, WorkerConfig(lease=3, heartbeat=0.5, safety_net=0.2))
        self._running = asyncio.create_task(self._worker.arun())
        self._producing = [asyncio.create_task(asyncio.to_thread(self._produce)), asyncio.create_task(self._aproduce())]
        return self

    def _produce(self) -> None:
        with closing(TaskQ(self._url, enqueue_timeout=60)) as app:
            note, number = app.remote("note"), 0
            while not self._is_over.is_set():
                number += 1
                try:
                    note.delay(number=f"t{number}")
                    self.acknowledged.append(f"t{number}")
                except Exception as error:
                    self._failed(f"t{number}", error)
                time.sleep(0.002)  # limits the load

    async def _aproduce(self) -> None:
        app = TaskQ(self._url, enqueue_timeout=60)
        note, number = app.remote("note"), 0
        while not self._is_over.is_set():
            number += 1
            try:
                await note.adelay(number=f"c{number}")
                self.acknowledged.append(f"c{number}")
            except Exception as error:
                self._failed(f"c{number}", error)
            await asyncio.sleep(0.002)  # limits the load
        await app.aclose()

    def _failed(self, number: str, error: Exception) -> None:
        if isinstance(error, EnqueueUnknownError):
            self.in_doubt.append(number)
        self.failures.append(error)

    async def go_on(self, more: int = 40) -> None:
        """Wait until each producer has enqueued this number of further tasks, and as many have run."""
        wanted = [len(self.ran) + more, *(self._count(kind) + more for kind in "tc")]
        await until(lambda: len(self.ran) >= wanted[0])
        await until(lambda: self._count("t") >= wanted[1] and self._count("c") >= wanted[2])

    def _count(self, kind: str) -> int:
        return sum(each.startswith(kind) for each in list(self.acknowledged))

    async def __aexit__(self, *exc: object) -> None:
        self._is_over.set()
        await asyncio.gather(*self._producing)
        if exc[0] is None:
            await until(lambda: set(self.acknowledged) <= set(self.ran))
        self._worker.stop()
        assert await self._running == 0
        await self._app.aclose()


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def check(load: Load) -> None:
    """Check that no enqueue failed, no task was lost and no task ran twice."""
    assert load.failures == []
    assert sorted(load.ran) == sorted(load.acknowledged)


def files_of(authority: trustme.CA, folder: Path, name: str) -> TlsFiles:
    """Write a new certificate and its key into one file."""
    issued = authority.issue_cert("localhost")
    path = folder / f"{name}.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    authority.cert_pem.write_to_path(folder / f"{name}-ca.pem")
    return TlsFiles(certificate=path, key=path, authority=folder / f"{name}-ca.pem")


async def test_password_and_certificate_change_under_load(tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    old, new = files_of(first, tmp_path, "old"), files_of(second, tmp_path, "new")
    password, trusted = tmp_path / "password", tmp_path / "ca.pem"
    write(password, "old\n")
    write(trusted, first.cert_pem.bytes())
    with RedisServer(tls=old) as server:
        server.command("ACL", "SETUSER", "app", "reset", "on", ">old", *" ".join(rules_of("worker")).split())
        url = f"rediss://app@localhost:{server.port}/0?password_file={password}&ssl_ca_certs={trusted}"
        async with Load(url) as load:
            await load.go_on()

            server.command(*command_of("Add the new password:"))
            write(password, "new\n")
            server.command(*command_of("Make every client reconnect:"))
            await load.go_on()
            server.command(*command_of("Remove the old password:"))
            server.command(*command_of("Make every client reconnect:"))
            await load.go_on()

            write(trusted, first.cert_pem.bytes() + second.cert_pem.bytes())
            server.renew_certificate(new)
            server.command(*command_of("Make every client reconnect:"))
            await load.go_on()
            write(trusted, second.cert_pem.bytes())
            server.command(*command_of("Make every client reconnect:"))
            await load.go_on()
        check(load)

        for option, secret, error in (
            (f"&ssl_ca_certs={trusted}", "old", BrokerAuthenticationError),
            (f"&ssl_ca_certs={old.authority}", "new", BrokerUnavailableError),
        ):
            write(password, secret)
            wrong = f"rediss://app@localhost:{server.port}/0?password_file={password}{option}"
            with closing(TaskQ(wrong)) as late, pytest.raises(error):
                late.runtime.runner.run(views.ping())


async def test_the_password_of_requirepass_changes_under_load(tmp_path: Path) -> None:
    """`requirepass` is a password of the user `default`, which can have several passwords like any other user."""
    password = tmp_path / "password"
    write(password, "old\n")

    def of_default(step: str) -> list[str]:
        return ["default" if word == "app" else word for word in command_of(step)]

    with RedisServer(tcp=True, password="old") as server:
        url = f"redis://127.0.0.1:{server.port}/0?password_file={password}"
        async with Load(url) as load:
            await load.go_on()
            server.command(*of_default("Add the new password:"))
            write(password, "new\n")
            server.command(*of_default("Make every client reconnect:"))
            await load.go_on()
            server.command(*of_default("Remove the old password:"))
            server.command(*of_default("Make every client reconnect:"))
            await load.go_on()
        check(load)

        write(password, "old\n")
        with closing(TaskQ(url)) as late, pytest.raises(BrokerAuthenticationError):
            late.runtime.runner.run(views.ping())


async def test_an_immediate_change_of_requirepass_loses_no_task(tmp_path: Path) -> None:
    """Open connections stay open. Producers without the new password are refused, and workers wait for it."""
    password = tmp_path / "password"
    write(password, "old\n")
    with RedisServer(tcp=True, password="old") as server:
        async with Load(f"redis://127.0.0.1:{server.port}/0?password_file={password}") as load:
            await load.go_on()
            server.command("CONFIG", "SET", "requirepass", "new")
            await load.go_on()
            assert load.failures == []
            server.command("CLIENT", "KILL", "USER", "default")
            await until(lambda: len(load.failures) >= 2)
            write(password, "new\n")
            await load.go_on()

        assert all(isinstance(each, EnqueueError) for each in load.failures)
        assert all(isinstance(each.__cause__, BrokerAuthenticationError) for each in load.failures)
        assert len(load.ran) == len(set(load.ran))
        assert set(load.acknowledged) <= set(load.ran) <= {*load.acknowledged, *load.in_doubt}


async def test_passwords_of_redis_and_of_sentinels_change_under_load(tmp_path: Path) -> None:
    redis_password, sentinel_password = tmp_path / "redis", tmp_path / "sentinel"
    for file in (redis_password, sentinel_password):
        write(file, "old\n")
    with (
        RedisServer(tcp=True, password="old") as primary,
        RedisServer(tcp=True, password="old", replica_of=primary) as replica,
        RedisServer(sentinel_of=primary) as sentinel,
    ):
        sentinel.wait_for_primary(60)  # no failover if the machine stalls for a moment
        sentinel.command("ACL", "SETUSER", "app", "reset", "on", ">old", "-@all", "+sentinel|get-master-addr-by-name")
        url = (
            f"redis+sentinel://127.0.0.1:{sentinel.port}/{RedisServer.MASTER_NAME}?password_file={redis_password}"
            f"&sentinel_username=app&sentinel_password_file={sentinel_password}"
        )

        def everywhere(step: str) -> None:
            sentinel.command(*command_of(step))
            for server in (primary, replica):
                server.command(*("default" if word == "app" else word for word in command_of(step)))

        def link_of_replica() -> bool:
            return bool(replica.client.info("replication")["master_link_status"] == "up")

        async with Load(url) as load:
            await load.go_on()
            everywhere("Add the new password:")
            sentinel.command(*command_of("Give each Sentinel the new password:"))
            for server in (primary, replica):
                server.command(*command_of("Give each replica the new password,"))
            for file in (redis_password, sentinel_password):
                write(file, "new\n")
            everywhere("Make every client reconnect:")
            await load.go_on()
            everywhere("Remove the old password:")
            everywhere("Make every client reconnect:")
            await load.go_on()
            primary.command("CLIENT", "KILL", "TYPE", "replica")
            await until(link_of_replica)
            sentinel.command(
                "SENTINEL", "RESET", RedisServer.MASTER_NAME
            )  # the Sentinel logs in again and lists the replicas
            await until(lambda: len(sentinel.command("SENTINEL", "REPLICAS", RedisServer.MASTER_NAME)) == 1)
            await load.go_on()
        check(load)


async def test_a_password_function_is_called_for_every_connection() -> None:
    class Provider(CredentialProvider):
        password = "old"

        def get_credentials(self) -> tuple[str, str]:
            return "app", self.password

    provider = Provider()
    with RedisServer(tcp=True) as server:
        server.command("ACL", "SETUSER", "app", "reset", "on", ">old", *" ".join(rules_of("worker")).split())
        async with Load(redis.Redis(port=server.port, credential_provider=provider)) as load:
            await load.go_on(10)
            server.command("ACL", "SETUSER", "app", ">new")
            provider.password = "new"
            server.command("ACL", "SETUSER", "app", "<old")
            server.command("CLIENT", "KILL", "USER", "app")
            await load.go_on(10)
        check(load)


async def test_a_worker_waits_for_a_password_that_is_late(tmp_path: Path) -> None:
    """The file is missing for a while, then has a password that is not valid yet. The worker continues once it is."""
    password = tmp_path / "password"
    write(password, "old")
    with RedisServer(tcp=True) as server:
        server.command("ACL", "SETUSER", "app", "reset", "on", ">old", *" ".join(rules_of("worker")).split())
        admin = TaskQ(server.unix_url, enqueue_timeout=60).remote("note")
        app = TaskQ(f"redis://app@127.0.0.1:{server.port}/0?password_file={password}")
        ran: list[int] = []

        @app.task(name="note")
        async def note(number: int) -> None:
            ran.append(number)

        worker = Worker(app, WorkerConfig(lease=2, heartbeat=0.5, safety_net=0.2))
        running = asyncio.create_task(worker.arun())
        await admin.adelay(number=1)
        await until(lambda: 1 in ran)
        for wrong in (None, "", "new"):
            password.unlink() if wrong is None else write(password, wrong)
            server.command("CLIENT", "KILL", "USER", "app")
            with (
                closing(TaskQ(app.settings.url)) as other,
                pytest.raises(
                    BrokerAuthenticationError if wrong else BrokerUnavailableError,
                    match="refused the user or password" if wrong else r"cannot read the password file|is empty",
                ),
            ):
                other.runtime.runner.run(views.ping())
        await admin.adelay(number=2)
        server.command("ACL", "SETUSER", "app", ">new")
        await until(lambda: 2 in ran)
        worker.stop()
        assert await running == 0
        await app.aclose()

    assert ran == [1, 2]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"one\ntwo\n", "has more than one line"),
        (b"x" * 70_000, "has more than one line"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
async def test_an_error_about_a_password_file_does_not_show_its_content(
    redis_server: RedisServer, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    password = tmp_path / "password"
    if content is not None:
        password.write_bytes(content)
    app = TaskQ(f"unix://{redis_server.socket_path}?password_file={password}")
    with pytest.raises(BrokerUnavailableError, match=f"cannot reach .*password file .*{problem}") as sync:
        await asyncio.to_thread(app.runtime.runner.run, views.ping())
    with pytest.raises(BrokerUnavailableError, match=problem):
        await app.runtime.async_runner.run(views.ping())

    assert "two" not in str(sync.value)
    assert "xxx" not in str(sync.value)
    await app.aclose()
    app.close()
