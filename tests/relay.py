"""A TCP relay between a client and a redis-server that can simulate faults of a network in both directions.

It runs in a thread with its own event loop, so that blocking code and coroutines can be tested through it. Bytes
from the client are requests, bytes from the server are replies.
"""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, Self

Direction = Literal["requests", "replies"]

HANDSHAKE = (b"+OK", b"-ERR Unknown", b"-ERR unknown")
"""Start of the replies to a new connection's announcement of its library name."""


class Relay:
    """Forwards bytes between a TCP port and a server while its context is open.

    Args:
        target: Unix socket of the server, or its host and port.

    Attributes:
        port: The TCP port.
        connections: Number of connections that were accepted.
        most_open: Largest number of simultaneously open connections.
        requests: Number of pieces of requests that arrived. A small write of a client is one piece.
        intercepted: Number of requests and replies that were dropped, held or copied.
        intercepted_words: For each word, the number of intercepted requests that contained it.
    """

    def __init__(self, target: Path | tuple[str, int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._delay_s = {"requests": 0.0, "replies": 0.0}
        self._chunk: int | None = None
        self._traps: list[tuple[tuple[bytes, ...], Callable[[_Pair], None]]] = []
        self._waiting: list[Callable[[_Pair], None]] = []
        self._replies_to_drop = 0
        self._held: set[Direction] = set()
        self._swallowed: set[Direction] = set()
        self._refuses = False
        self._changed = asyncio.Event()
        self.port = 0
        self.connections = 0
        self.most_open = 0
        self.requests = 0
        self.intercepted = 0
        self.intercepted_words: Counter[bytes] = Counter()

    @property
    def url(self) -> str:
        """Redis URL of the relay."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def open_connections(self) -> int:
        """Return the number of open connections."""
        return len(self._pairs)

    @property
    def connections_with_gaps(self) -> int:
        """Return the number of open connections that lost bytes."""
        return sum(pair.has_lost for pair in list(self._pairs))

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- faults -------------------------------------------------------------------------------------------------------

    def drop_reply_to(self, *words: bytes, times: int = 1) -> None:
        """Forward the next requests with one of these words, but drop their replies and close the connections."""
        self._call(lambda: self._traps.extend([(words, _Pair.lose_replies)] * times))

    def drop_request(self, *words: bytes) -> None:
        """Drop the next request that contains one of these words, and close its connection."""
        self._call(lambda: self._traps.append((words, _Pair.lose_requests)))

    def drop_replies(self, count: int) -> None:
        """Drop the next `count` replies and close their connections. Replies to handshakes do not count."""
        self._call(lambda: setattr(self, "_replies_to_drop", count))

    def hold_request(self, *words: bytes, hang_up: bool = False) -> "HeldRequest":
        """Hold the next request that contains one of these words until `release` sends it, unchanged, to the server.

        Later requests on the same connection wait as well. The server gets the request even if the client has closed
        its connection; the reply is dropped then.

        Args:
            words: Words to search for.
            hang_up: Close the client's side of the connection at once, so the client repeats the request without
                waiting for its timeout.
        """
        return self._wait_for(words, HeldRequest(self, hang_up=hang_up))

    def copy_request(self, *words: bytes) -> "HeldRequest":
        """Forward the next request that contains one of these words. `release` sends it again, on a new connection.

        The request must arrive in one piece.
        """
        return self._wait_for(words, HeldRequest(self, is_copy=True))

    def hold(self, *directions: Direction) -> None:
        """Hold the bytes of these directions until `forward`. Connections stay open, and new ones are accepted."""
        self._call(lambda: self._held.update(directions))

    def swallow(self, *directions: Direction) -> None:
        """Drop the bytes of these directions until `forward`. Connections stay open until then."""
        self._call(lambda: self._swallowed.update(directions))

    def refuse(self) -> None:
        """Close all connections, and refuse new ones until `forward`."""

        def refuse() -> None:
            self._refuses = True
            self._cut()

        self._call(refuse)

    def delay(self, direction: Direction, seconds: float) -> None:
        """Delay the bytes of a direction."""
        self._call(lambda: self._delay_s.__setitem__(direction, seconds))

    def trickle(self, chunk: int | None) -> None:
        """Forward bytes in pieces of this size; None for the size in which they arrive."""
        self._call(lambda: setattr(self, "_chunk", chunk))

    def cut(self) -> None:
        """Close all connections now. New ones are accepted."""
        self._call(self._cut)

    def forward(self) -> None:
        """End all faults, except for requests that `hold_request` and `copy_request` wait for or hold."""

        def behave() -> None:
            self._delay_s = {"requests": 0.0, "replies": 0.0}
            self._chunk, self._replies_to_drop = None, 0
            self._traps = [trap for trap in self._traps if trap[1] in self._waiting]
            self._refuses = False
            self._held.clear()
            if self._swallowed:
                self._swallowed.clear()
                for pair in [pair for pair in self._pairs if pair.has_lost]:
                    pair.close()  # after a gap the client or server would misread the next bytes
            self._wake()

        self._call(behave)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _wait_for(self, words: tuple[bytes, ...], held: "HeldRequest") -> "HeldRequest":
        def wait() -> None:
            self._waiting.append(held._on_match)
            self._traps.append((words, held._on_match))

        self._call(wait)
        return held

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _call(self, change: Callable[[], None]) -> None:
        async def call() -> None:
            change()

        self._run(call())

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._cut()
        await asyncio.sleep(0)  # the loop has a task for each accepted connection
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.close()
        self._wake()

    def _wake(self) -> None:
        """Make every pump check whether it may continue."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        return await asyncio.open_connection(*self._target)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refuses:
            writer.close()
            return
        try:
            back_reader, back_writer = await self._connect()
        except (OSError, asyncio.CancelledError):  # cancelled: the relay closes
            writer.close()
            return
        pair = _Pair(writer, back_writer)
        self._pairs.add(pair)
        self.most_open = max(self.most_open, len(self._pairs))
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
                if direction == "requests":
                    self.requests += 1
                    self._intercept(pair, data)
                elif self._replies_to_drop and not data.startswith(HANDSHAKE):
                    self._replies_to_drop -= 1
                    self.intercepted += 1
                    pair.lose_replies()
                if self._delay_s[direction]:
                    await asyncio.sleep(self._delay_s[direction])
                while not pair.is_closed and (direction in self._held or (direction == "requests" and pair.is_held)):
                    await self._changed.wait()
                if direction in pair.loses:
                    break
                if direction == "replies" and pair.awaits_reply:
                    assert pair.held is not None
                    pair.held.answered.set()
                    if pair.has_client_gone:
                        break
                if direction in self._swallowed:
                    pair.has_lost = True
                    continue
                writer.write(data)
                await writer.drain()
        pair.has_client_gone |= direction == "requests"
        if direction == "replies" or not pair.awaits_reply:
            pair.close()

    async def _send_again(self, held: "HeldRequest") -> None:
        """Send the copy of a request on a new connection, and wait for the reply."""
        with contextlib.suppress(OSError):
            reader, writer = await self._connect()
            try:
                writer.write(held.data)
                await reader.read(1)
                held.answered.set()
            finally:
                writer.close()

    def _intercept(self, pair: "_Pair", data: bytes) -> None:
        window = pair.tail + data  # a word may arrive in two pieces
        for trap in self._traps:
            words, on_match = trap
            word = next((word for word in words if word in window), None)
            if word is not None:
                self._traps.remove(trap)
                self.intercepted += 1
                self.intercepted_words[word] += 1
                pair.data = data
                on_match(pair)
                pair.tail = b""  # do not find the same word again in the next piece
                return
        longest = max((len(word) for words, _ in self._traps for word in words), default=1)
        pair.tail = window[-(longest - 1) :] if longest > 1 else b""


class _Pair:
    """The two ends of one relayed connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        self.loses: set[Direction] = set()
        self.has_lost = False
        self.is_held = False
        self.held: HeldRequest | None = None
        self.has_client_gone = False
        self.is_closed = False
        self.tail = b""
        self.data = b""

    @property
    def awaits_reply(self) -> bool:
        """Whether a released request has not been answered yet."""
        return self.held is not None and not self.is_held and not self.held.answered.is_set()

    def lose_replies(self) -> None:
        self.loses.add("replies")

    def lose_requests(self) -> None:
        self.loses.add("requests")

    def hang_up(self) -> None:
        """Close the client's side."""
        self._ends[0].close()

    def close(self) -> None:
        self.is_closed = True
        for end in self._ends:
            end.close()


class HeldRequest:
    """A request that the relay waits for, holds or has copied.

    Attributes:
        arrived: Set when the request has arrived at the relay.
        answered: Set when the server has answered the released request.
        is_sent: Whether the request was released after it had arrived.
        data: The bytes of the request, b"" until it has arrived.
    """

    def __init__(self, relay: Relay, *, hang_up: bool = False, is_copy: bool = False) -> None:
        self._relay = relay
        self._hang_up = hang_up
        self._is_copy = is_copy
        self.is_sent = False
        self._pair: _Pair | None = None
        self._sending: asyncio.Task[None] | None = None
        self.arrived = threading.Event()
        self.answered = threading.Event()
        self.data = b""

    def _on_match(self, pair: "_Pair") -> None:
        self._pair, self.data = pair, pair.data
        if not self._is_copy:
            pair.is_held, pair.held = True, self
        if self._hang_up:
            pair.hang_up()
        self.arrived.set()

    def release(self) -> None:
        """Send the request to the server if it has arrived. Otherwise stop waiting for it."""

        def release() -> None:
            relay = self._relay
            if self._on_match in relay._waiting:
                relay._waiting.remove(self._on_match)
            relay._traps = [trap for trap in relay._traps if trap[1] != self._on_match]
            if self._pair is None or self.is_sent:
                return
            self.is_sent = True
            if self._is_copy:
                self._sending = relay._loop.create_task(relay._send_again(self))
            else:
                self._pair.is_held = False
                relay._wake()

        self._relay._call(release)

    def deliver(self) -> None:
        """Send the request, which must have arrived, to the server and wait for the reply."""
        assert self.arrived.is_set(), "no matching request arrived"
        self.release()
        assert self.answered.wait(60), "the server did not answer"
