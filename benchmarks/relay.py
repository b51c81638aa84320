"""A TCP relay that simulates a network: it delays all bytes by a fixed time, without root rights.

    python -m benchmarks.relay redis://127.0.0.1:6379 --round-trip-ms 2.5

It prints the URL of the relay. All bytes wait for half of the round trip in each direction, however many are on their
way, as on a real network with enough bandwidth. It runs in a process of its own, with one thread.

The event loops of Python round delays up to whole milliseconds, so this relay has its own loop: it sleeps in `select`,
whose timeout has microseconds, and asks the kernel not to extend its sleeps. On an idle machine, a round trip then
deviates by less than 0.1 ms from its nominal time. `round_trip_s` measures it.
"""

import argparse
import contextlib
import ctypes
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from urllib.parse import urlsplit

_PR_SET_TIMERSLACK = 29
_CHUNK = 1 << 18
_SPIN_S = 0.00008
"""The relay does not sleep for less than this time, because the kernel may wake it up too late."""
_WAKE_S = 0.00005
"""Usual time until the kernel wakes up the relay when bytes arrive. It is part of each delay."""


class _Direction:
    """One direction of a connection: bytes from `source` arrive at `target` after the delay."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.waiting: deque[tuple[float, bytes]] = deque()


def relay(listener: socket.socket, target: tuple[str, int], one_way_s: float) -> None:
    """Forward connections between a listening socket and a server, for ever.

    Args:
        listener: The listening socket.
        target: Host and port of the server.
        one_way_s: Seconds by which each direction is delayed.
    """
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the delays are less exact
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    selector = selectors.SelectSelector()  # `epoll` rounds its timeout up to a millisecond
    selector.register(listener, selectors.EVENT_READ)
    ends: dict[socket.socket, _Direction] = {}
    while True:
        now = time.perf_counter()
        next_due = now + 1.0
        for end in list(ends.values()):
            while end.waiting and end.waiting[0][0] <= now:
                data = end.waiting.popleft()[1]
                try:
                    end.target.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    _close(selector, ends, end)
                    break
            if end.waiting:
                next_due = min(next_due, end.waiting[0][0])
        left_s = next_due - time.perf_counter()
        for key, _ in selector.select(left_s - _SPIN_S if left_s > 2 * _SPIN_S else 0):
            source = key.fileobj
            assert isinstance(source, socket.socket)
            if source is listener:
                client, _ = listener.accept()
                server = socket.create_connection(target)
                for each, other in ((client, server), (server, client)):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ends[each] = _Direction(each, other)
                    selector.register(each, selectors.EVENT_READ)
                continue
            try:
                data = source.recv(_CHUNK)
            except OSError:
                data = b""
            if not data:
                selector.unregister(source)
            if source in ends:
                ends[source].waiting.append((time.perf_counter() + one_way_s - _WAKE_S, data))


def _close(selector: selectors.BaseSelector, ends: dict[socket.socket, _Direction], end: _Direction) -> None:
    for each in (end.source, end.target):
        ends.pop(each, None)
        with contextlib.suppress(KeyError, ValueError):
            selector.unregister(each)
        each.close()


@contextlib.contextmanager
def delayed(url: str, round_trip_ms: float) -> Iterator[str]:
    """Start a relay to a Redis in a separate process. Yield the URL of the relay.

    Args:
        url: URL of Redis, with host and port.
        round_trip_ms: Milliseconds that each request and its reply need together.
    """
    command = [sys.executable, "-m", "benchmarks.relay", url, "--round-trip-ms", str(round_trip_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def round_trip_s(url: str) -> float:
    """Measure the median round trip of 300 PINGs in seconds. The URL has host and port, and no password."""
    address = urlsplit(url)
    times = []
    with socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(300):
            started = time.perf_counter()
            connection.sendall(b"PING\r\n")
            connection.recv(_CHUNK)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Run a relay until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="URL of Redis, with host and port")
    parser.add_argument("--round-trip-ms", type=float, required=True)
    options = parser.parse_args()
    address = urlsplit(options.url)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", flush=True)
    relay(listener, (address.hostname or "127.0.0.1", address.port or 6379), options.round_trip_ms / 2000)


if __name__ == "__main__":
    main()
