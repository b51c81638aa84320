"""The relay misbehaves as it is told to, and behaves again."""

import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.redis_server import RedisServer
from tests.relay import Relay

pytestmark = pytest.mark.redis


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    with Relay(redis_server.socket_path) as relay:
        yield relay


def client(relay: Relay) -> redis.Redis:
    return redis.Redis(port=relay.port, socket_timeout=0.3, protocol=2, retry=Retry(NoBackoff(), 0))


def arrives(server: RedisServer, key: str) -> None:
    """Wait for a key; the test's own limit ends a wait in vain."""
    while server.client.get(key) is None:
        time.sleep(0.005)


def test_it_passes_on_to_a_host_and_port() -> None:
    with RedisServer(tcp=True) as server, Relay(("127.0.0.1", server.port)) as relay:
        assert client(relay).ping()


def test_a_held_request_arrives_when_it_is_let_go_though_its_sender_is_gone(
    redis_server: RedisServer, relay: Relay
) -> None:
    """As a packet that was long on its way."""
    held = relay.hold_request(b"late")

    with pytest.raises(redis.TimeoutError):
        client(relay).set("late", "1")

    assert held.came.is_set()
    assert redis_server.client.get("late") is None
    relay.forward()
    assert redis_server.client.get("late") is None
    held.let_go()
    arrives(redis_server, "late")
    assert client(relay).ping()


def test_a_request_that_is_waited_for_no_longer_passes(relay: Relay) -> None:
    held = relay.hold_request(b"late")
    held.let_go()

    assert client(relay).set("late", "1")
    assert not held.came.is_set()


@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_what_is_held_comes_through_afterwards(redis_server: RedisServer, relay: Relay, direction: str) -> None:
    one = client(relay)
    assert one.ping()
    relay.hold(direction)  # type: ignore[arg-type]  # the parameter is one of both

    with pytest.raises(redis.TimeoutError):
        one.set("kept", "1")

    assert (redis_server.client.get("kept") is None) == (direction == "requests")
    relay.forward()
    arrives(redis_server, "kept")


def test_what_is_swallowed_never_comes_and_its_connection_ends(redis_server: RedisServer, relay: Relay) -> None:
    one = client(relay)
    assert one.ping()
    relay.swallow("requests")

    with pytest.raises(redis.TimeoutError):
        one.set("gone", "1")

    relay.forward()
    assert one.ping()
    assert redis_server.client.get("gone") is None


def test_it_refuses_until_it_behaves_again(relay: Relay) -> None:
    one = client(relay)
    assert one.ping()
    relay.refuse()

    with pytest.raises(redis.ConnectionError):
        one.ping()

    assert relay.open_connections == 0
    relay.forward()
    assert one.ping()
