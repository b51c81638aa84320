"""A Redis in a network namespace with two links to it, for tests of TCP when one of the links fails.

When the link is back, the kernel sends the lost data again, also for a connection that its client has closed. No relay
is involved.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.redis_server import RedisServer

HOST = "two-paths.test"
"""Host name of the server, which `resolve` can look up."""
PATIENCE_S = 60.0


class NoNamespaceError(Exception):
    """This process may not create network namespaces."""


class TwoPaths:
    """A network namespace with a redis-server and two veth pairs to it. It exists while its context is open.

    Each test process uses two separate networks from 198.18.0.0/15, which RFC 2544 reserves for tests. They exist only
    on these interfaces.

    Args:
        folder: An empty folder.

    Raises:
        NoNamespaceError: This process is not root, or the machine does not allow namespaces.
    """

    def __init__(self, folder: Path) -> None:
        self._name = f"taskq{os.getpid()}"
        self._links = [f"tq{os.getpid()}-{number}" for number in (1, 2)]
        first = 8 * (os.getpid() % 2**14)  # two networks of four addresses each
        networks = [(198 << 24) + (18 << 16) + first + 4 * number for number in (0, 1)]
        self._networks = f"{_text(networks[0])}/29"
        self._here, self._there = ([_text(network + host) for network in networks] for host in (1, 2))
        self._program = (
            folder / "redis-server"
        )  # runs in the namespace, so that its addresses are reachable only through the two links
        self.server = RedisServer(tcp=True, options={"bind": "0.0.0.0", "protected-mode": "no"})
        self._program.write_text(f'#!/bin/sh\nexec ip netns exec {self._name} "{self.server.binary}" "$@"\n')
        self._program.chmod(0o700)
        self.server.binary = self._program

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.server.port}/0"

    def __enter__(self) -> Self:
        try:
            self._open()
            self.server.start()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            raise NoNamespaceError(str(getattr(error, "stderr", "") or error).strip()) from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        _ip("netns", "add", self._name)
        for link, here, there in zip(self._links, self._here, self._there, strict=True):
            _ip("link", "add", link, "type", "veth", "peer", "name", link, "netns", self._name)
            _ip("-n", self._name, "address", "add", f"{there}/30", "dev", link)
            _ip("-n", self._name, "link", "set", link, "up")
            _ip("address", "add", f"{here}/30", "dev", link)
            _ip("link", "set", link, "up")
        # While a link is down, packets for its network must not leave this machine by another route.
        _ip("route", "add", "unreachable", self._networks, "metric", "4000")

    def __exit__(self, *exc: object) -> None:
        self.server.close()
        made = (*(("link", "delete", link) for link in self._links), ("route", "delete", "unreachable", self._networks))
        for words in (*made, ("netns", "delete", self._name)):
            with suppress(OSError, subprocess.CalledProcessError):  # it was not created
                _ip(*words)

    def resolve(self, getaddrinfo: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        """Return a replacement of `socket.getaddrinfo` that resolves `HOST` to both addresses, the first link first."""

        def resolved(host: Any, *words: Any, **options: Any) -> list[Any]:
            if host != HOST:
                return getaddrinfo(host, *words, **options)
            return [each for address in self._there for each in getaddrinfo(address, *words, **options)]

        return resolved

    def cut_first(self) -> None:
        """Take the first link down. The kernel keeps data that was sent on it and is not acknowledged."""
        _ip("link", "set", self._links[0], "down")

    def restore_first(self) -> None:
        """Take the first link up. Wait until the kernel has sent the data that it kept and Redis has processed them."""
        assert self._unacknowledged(), "nothing was lost on the first link"
        _ip("link", "set", self._links[0], "up")
        deadline = time.monotonic() + PATIENCE_S
        while self._unacknowledged():
            assert time.monotonic() < deadline, "the kernel did not send the lost data"
            time.sleep(0.01)
        for _ in range(2):  # Redis may read the first PING together with the last of these bytes
            self.server.command("PING")

    def _unacknowledged(self) -> int:
        """Return the number of unacknowledged bytes to Redis on the first link."""
        server = f"{socket.inet_aton(self._there[0])[::-1].hex().upper()}:{self.server.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(int(row[4].partition(":")[0], 16) for row in rows if row[2] == server)


def _text(address: int) -> str:
    return socket.inet_ntoa(address.to_bytes(4))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
