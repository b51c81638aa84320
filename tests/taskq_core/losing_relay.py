"""A relay in front of a redis-server that can lose the reply to one request, as a broken network does."""

import contextlib
import socket
import tempfile
import threading
from pathlib import Path
from typing import Self


class LosingRelay:
    """Passes bytes on between a unix socket of its own and a server's.

    Args:
        target: The server's socket.
    """

    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._folder = tempfile.TemporaryDirectory(prefix="taskq-relay-")
        self.path = Path(self._folder.name) / "relay.sock"
        self._losing: list[bytes] = []
        self.lost = 0
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self._server.listen(64)
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def lose_reply_to(self, word: bytes, *, times: int = 1) -> None:
        """Let requests that contain the word through to the server and close the connection instead of the reply."""
        self._losing += [word] * times

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        self._open += [client, server]
        with client, server, contextlib.suppress(OSError):
            server.connect(self._target)
            mute = threading.Event()
            back = threading.Thread(target=self._pump_back, args=(server, client, mute), daemon=True)
            back.start()
            while data := client.recv(1 << 20):
                word = next((each for each in self._losing if each in data), None)
                if word is not None:
                    self._losing.remove(word)
                    mute.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join()

    def _pump_back(self, server: socket.socket, client: socket.socket, mute: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                if mute.is_set():
                    self.lost += 1
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._folder.cleanup()
