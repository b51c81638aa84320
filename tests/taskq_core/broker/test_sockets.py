"""Test a connection of the blocking runner: its system calls, and its handling of every kind of reply."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from taskq_core.broker.sync import ClientStream, SocketStream, stream_over


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a connection: the client's and the server's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def stream(ends: tuple[socket.socket, socket.socket]) -> SocketStream:
    return SocketStream(ends[0])


@pytest.fixture
def server(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    return ends[1]


def after(seconds: float) -> float:
    """Return a time after now, on the clock that deadlines use."""
    return time.monotonic() + seconds


class Counting:
    """A socket that records its method calls."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name != "fileno":
            self.asked.append(name)
        return getattr(self._real, name)


def test_an_exchange_takes_three_system_calls_and_one_wait(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, server = ends
    counting: Any = Counting(ours)
    stream = SocketStream(counting)
    counting.asked.clear()

    for _ in range(3):
        assert stream.is_clean
        stream.send(b"PING", after(60))
        assert server.recv(100) == b"PING"
        server.sendall(b"+PONG\r\n")
        assert stream.read(after(60)) == b"PONG"

    assert counting.asked == ["recv", "send", "recv"] * 3


def test_a_reply_may_arrive_in_pieces(stream: SocketStream, server: socket.socket) -> None:
    def trickle() -> None:
        for byte in b"*2\r\n$3\r\none\r\n:2\r\n":
            server.sendall(bytes((byte,)))

    thread = threading.Thread(target=trickle)
    thread.start()

    assert stream.read(after(60)) == [b"one", 2]
    thread.join()


def test_two_replies_may_arrive_at_once(stream: SocketStream, server: socket.socket) -> None:
    server.sendall(b"+OK\r\n+more\r\n")

    assert stream.read(after(60)) == b"OK"
    assert not stream.is_clean, "it waits already, though not in the operating system"
    assert stream.read(after(60)) == b"more"
    assert stream.is_clean


def test_an_error_reply_is_returned(stream: SocketStream, server: socket.socket) -> None:
    server.sendall(b"-NOSCRIPT No matching script\r\n")

    reply = stream.read(after(60))

    assert isinstance(reply, ResponseError)
    assert str(reply) == "NOSCRIPT No matching script"


@pytest.mark.parametrize("began", [b"", b"$100\r\nhalf of it"])
def test_a_late_reply_raises_a_timeout(stream: SocketStream, server: socket.socket, began: bytes) -> None:
    server.sendall(began)
    started = time.monotonic()

    with pytest.raises(TimeoutError, match="no answer in time"):
        stream.read(after(0.02))

    assert time.monotonic() - started >= 0.02


def test_a_request_larger_than_the_socket_buffer_is_sent_completely(
    stream: SocketStream, server: socket.socket
) -> None:
    request = bytes(range(256)) * 40_000
    received = bytearray()

    def receive() -> None:
        while len(received) < len(request):
            received.extend(server.recv(1 << 16))

    thread = threading.Thread(target=receive)
    thread.start()
    stream.send(request, after(60))
    thread.join()

    assert bytes(received) == request


def test_a_request_that_cannot_be_sent_in_time_raises_a_timeout(stream: SocketStream) -> None:
    with pytest.raises(TimeoutError, match="the request was not sent in time"):
        stream.send(bytes(20_000_000), after(0.02))


def test_a_connection_with_unread_data_is_not_clean(stream: SocketStream, server: socket.socket) -> None:
    assert stream.is_clean
    server.sendall(b"+late\r\n")

    assert not stream.is_clean


def test_a_closed_connection_is_not_clean_and_raises(stream: SocketStream, server: socket.socket) -> None:
    server.close()

    assert not stream.is_clean
    with pytest.raises(ConnectionError):
        stream.read(after(60))
    with pytest.raises(OSError, match=r".+"):
        stream.send(b"PING", after(60))


def test_a_reply_of_another_protocol_raises(stream: SocketStream, server: socket.socket) -> None:
    server.sendall(b"HTTP/1.1 400\r\n\r\n")

    with pytest.raises(ConnectionError):
        stream.read(after(60))


class TestTakingOver:
    def test_a_connection_without_a_plain_socket_is_not_taken_over(self) -> None:
        """Examples are a TLS socket, which reads ahead, and a fake socket."""

        class Wrapped(socket.socket): ...

        class Connection:
            _sock: Any = None

        connection = Connection()
        assert isinstance(stream_over(connection), ClientStream)
        assert isinstance(stream_over(object()), ClientStream)
        with Wrapped() as wrapped:
            connection._sock = wrapped
            assert isinstance(stream_over(connection), ClientStream)

    def test_a_plain_socket_is_taken_over(self, ends: tuple[socket.socket, socket.socket]) -> None:
        class Connection:
            _sock = ends[0]

        assert isinstance(stream_over(Connection()), SocketStream)
