"""The relay misbehaves as it is told to, and behaves again."""

import time
from collections.abc import Callable, Iterator

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


PATIENCE_S = 60
SILENCE_S = 0.1
"""Seconds without an answer that are taken for none; one that comes later is not seen, and fails nothing."""


def client(relay: Relay) -> redis.Redis:
    return redis.Redis(port=relay.port, socket_timeout=PATIENCE_S, protocol=2, retry=Retry(NoBackoff(), 0))


@pytest.fixture
def connection(relay: Relay) -> Iterator[redis.Connection]:
    """A connection that stands before anything misbehaves."""
    connection = redis.Connection(host="127.0.0.1", port=relay.port, socket_timeout=PATIENCE_S, protocol=2)
    connection.send_command("PING")
    assert connection.read_response() == b"PONG"
    yield connection
    connection.disconnect()


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; the test's own limit ends a wait in vain."""
    while not condition():
        time.sleep(0.005)


def test_it_passes_on_to_a_host_and_port() -> None:
    with RedisServer(tcp=True) as server, Relay(("127.0.0.1", server.port)) as relay:
        assert client(relay).ping()


def test_a_held_request_arrives_when_it_is_let_go_though_its_sender_is_gone(
    redis_server: RedisServer, relay: Relay, connection: redis.Connection
) -> None:
    """As a packet that was long on its way."""
    held = relay.hold_request(b"late")

    connection.send_command("SET", "late", "1")
    assert held.came.wait(PATIENCE_S)
    connection.disconnect()

    assert redis_server.client.get("late") is None
    relay.forward()
    assert redis_server.client.get("late") is None
    held.let_go()
    until(lambda: redis_server.client.get("late"))
    assert client(relay).ping()


def test_a_request_that_is_waited_for_no_longer_passes(relay: Relay) -> None:
    held = relay.hold_request(b"late")
    held.let_go()

    assert client(relay).set("late", "1")
    assert not held.came.is_set()


def test_a_client_whose_request_is_held_may_be_hung_up_on(
    redis_server: RedisServer, relay: Relay, connection: redis.Connection
) -> None:
    held = relay.hold_request(b"late", hang_up=True)

    connection.send_command("INCR", "late")

    with pytest.raises(redis.ConnectionError):
        connection.read_response()
    assert redis_server.client.get("late") is None
    held.let_go()
    assert held.answered.wait(PATIENCE_S)
    assert redis_server.client.get("late") == b"1"


def test_a_copied_request_arrives_again_on_another_connection(
    redis_server: RedisServer, relay: Relay, connection: redis.Connection
) -> None:
    copied = relay.copy_request(b"late")
    connection.send_command("INCR", "late")
    assert connection.read_response() == 1
    before = redis_server.client.info("stats")["total_connections_received"]

    copied.let_go()

    assert copied.answered.wait(PATIENCE_S)
    assert redis_server.client.get("late") == b"2"
    assert redis_server.client.info("stats")["total_connections_received"] == before + 1


@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_what_is_held_comes_through_afterwards(
    redis_server: RedisServer, relay: Relay, connection: redis.Connection, direction: str
) -> None:
    relay.hold(direction)  # type: ignore[arg-type]  # the parameter is one of both

    connection.send_command("SET", "kept", "1")
    if direction == "replies":
        until(lambda: redis_server.client.get("kept"))

    assert not connection.can_read(SILENCE_S)
    assert (redis_server.client.get("kept") is None) == (direction == "requests")
    relay.forward()
    assert connection.read_response() == b"OK"
    assert redis_server.client.get("kept") == b"1"


def test_what_is_swallowed_never_comes_and_its_connection_ends(
    redis_server: RedisServer, relay: Relay, connection: redis.Connection
) -> None:
    relay.swallow("requests")

    connection.send_command("SET", "gone", "1")
    until(lambda: relay.connections_with_gaps)

    assert not connection.can_read(SILENCE_S)
    relay.forward()
    with pytest.raises(redis.ConnectionError):
        connection.read_response()
    assert client(relay).ping()
    assert redis_server.client.get("gone") is None


def test_it_refuses_until_it_behaves_again(relay: Relay) -> None:
    one = client(relay)
    assert one.ping()
    relay.refuse()

    with pytest.raises(redis.ConnectionError):
        one.ping()

    until(lambda: relay.open_connections == 0)
    relay.forward()
    assert one.ping()
