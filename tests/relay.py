"""A small TCP relay between a client and a server, which can misbehave in both directions.

It runs in a thread with an event loop of its own, so that blocking code and coroutines can be tested through it. Bytes
that go to the server are requests, bytes that come back are replies.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Self

Direction = Literal["requests", "replies"]


class Relay:
    """Passes bytes between its own TCP port and a server; a context manager.

    Args:
        path: Unix socket of the server, or None.
        host, port: Address of the server where `path` is None.
    """

    def __init__(self, path: str | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._path, self._host, self._server_port = path, host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._is_open = {"requests": asyncio.Event(), "replies": asyncio.Event()}
        self._drops = {"requests": False, "replies": False}
        self._delay_s = {"requests": 0.0, "replies": 0.0}
        self._chunk: int | None = None
        self._accepts = True
        self._trap: tuple[bytes, Callable[[_Pair], None]] | None = None
        self.port = 0
        self.trapped = 0
        """Requests that `drop_reply_to` or `cut_after` met."""
        self.accepted = 0
        """Connections accepted so far."""

    @property
    def url(self) -> str:
        """Redis URL of the relay."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- misbehaviour -------------------------------------------------------------------------------------------------

    def hold(self, direction: Direction) -> None:
        """Keep bytes of a direction until `forward`, in order."""
        self._call(self._is_open[direction].clear)

    def drop(self, direction: Direction) -> None:
        """Throw bytes of a direction away until `forward`, as a network that lost one way does."""
        self._set(self._drops, direction, True)

    def delay(self, direction: Direction, seconds: float) -> None:
        """Pass bytes of a direction on so much later."""
        self._set(self._delay_s, direction, seconds)

    def trickle(self, chunk: int | None) -> None:
        """Pass bytes on in pieces of this size; None as they come."""
        self._call(lambda: setattr(self, "_chunk", chunk))

    def cut(self) -> None:
        """Close all connections now. New ones are accepted."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Close all connections and every new one until `forward`."""
        self._call(lambda: setattr(self, "_accepts", False))
        self.cut()

    def drop_reply_to(self, word: bytes) -> None:
        """Pass on the next request that holds `word`, and throw its reply and the connection away."""
        self._call(lambda: setattr(self, "_trap", (word, _Pair.lose_replies)))

    def drop_request(self, word: bytes) -> None:
        """Throw the next request that holds `word` away, and its connection."""
        self._call(lambda: setattr(self, "_trap", (word, _Pair.lose_request)))

    def forward(self) -> None:
        """Behave again, in all respects."""

        def behave() -> None:
            for direction in ("requests", "replies"):
                self._is_open[direction].set()
                self._drops[direction] = False
                self._delay_s[direction] = 0.0
            self._chunk, self._accepts, self._trap = None, True, None

        self._call(behave)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, change: Callable[[], None]) -> None:
        async def call() -> None:
            change()

        self._run(call())

    def _set(self, values: dict[str, Any], direction: str, value: Any) -> None:
        self._call(lambda: values.__setitem__(direction, value))

    async def _open(self) -> None:
        for event in self._is_open.values():
            event.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._cut()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if not self._accepts:
            writer.close()
            return
        try:
            if self._path is not None:
                back_reader, back_writer = await asyncio.open_unix_connection(self._path)
            else:
                back_reader, back_writer = await asyncio.open_connection(self._host, self._server_port)
        except OSError:
            writer.close()
            return
        pair = _Pair(writer, back_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump(pair, "requests", reader, back_writer), self._pump(pair, "replies", back_reader, writer)
            )
        finally:
            pair.close()
            self._pairs.discard(pair)

    async def _pump(
        self, pair: "_Pair", direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(self._chunk or 65536):
                if direction == "requests" and self._trap is not None and self._trap[0] in data:
                    self.trapped += 1
                    _, spring = self._trap
                    self._trap = None
                    spring(pair)
                if self._delay_s[direction]:
                    await asyncio.sleep(self._delay_s[direction])
                await self._is_open[direction].wait()
                if self._drops[direction]:
                    continue
                if pair.loses[direction]:
                    break
                writer.write(data)
                await writer.drain()
        pair.close()


class _Pair:
    """The two ends of one relayed connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        self.loses = {"requests": False, "replies": False}

    def lose_replies(self) -> None:
        self.loses["replies"] = True

    def lose_request(self) -> None:
        self.loses["requests"] = True

    def close(self) -> None:
        for end in self._ends:
            end.close()
