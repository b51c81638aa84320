"""A relay in front of a redis-server that loses what it is told to lose."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self


class Relay:
    """Listens on a unix socket and passes bytes on to another one; a context manager.

    Attributes:
        lose_replies: How many of the next replies are lost, and their connections closed.
        connections: How many connections were opened.
    """

    def __init__(self, target: Path, folder: Path) -> None:
        self.path = folder / "relay.sock"
        self.lose_replies = 0
        self.connections = 0
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._close(self._listener)
        for each in self._sockets:
            self._close(each)
        for thread in self._threads:
            thread.join()

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]  # any callable
        self._threads.append(thread)
        thread.start()

    def _close(self, each: socket.socket) -> None:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                front, _ = self._listener.accept()
                back = socket.socket(socket.AF_UNIX)
                back.connect(str(self._target))
                self.connections += 1
                self._sockets += (front, back)
                self._start(self._pump, front, back, False)
                self._start(self._pump, back, front, True)

    def _pump(self, source: socket.socket, target: socket.socket, is_reply: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                # The handshake's answers (CLIENT SETINFO) are let through: only an error, or OK.
                if is_reply and self.lose_replies and not data.startswith((b"+OK", b"-ERR Unknown", b"-ERR unknown")):
                    self.lose_replies -= 1
                    break
                target.sendall(data)
        self._close(target)
        self._close(source)
