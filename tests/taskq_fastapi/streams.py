"""Read the Server-Sent Events of an ASGI app while it sends them, without a server."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.clock import Clock


@dataclass
class Event:
    """One event of a stream."""

    kind: str
    id: str | None
    data: Any


@dataclass
class Stream:
    """An open request."""

    app: Any
    path: str
    headers: dict[str, str]
    clock: Clock | None = None
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    is_over: bool = False

    def __post_init__(self) -> None:
        self._came = asyncio.Condition()
        self._left = asyncio.Event()
        self._read = 0

    async def run(self) -> None:
        """Send the request. Return when the response is complete or the client has disconnected."""
        path, _, query = self.path.partition("?")
        raw = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": raw,
            "server": ("test", 80),
            "client": ("test", 1),
        }
        has_asked = False

        async def receive() -> dict[str, Any]:
            nonlocal has_asked
            if has_asked:
                await self._left.wait()
                return {"type": "http.disconnect"}
            has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            async with self._came:
                if message["type"] == "http.response.start":
                    self.status = message["status"]
                    self.answer_headers = {name.decode(): value.decode() for name, value in message["headers"]}
                else:
                    self.text += message.get("body", b"").decode()
                self._came.notify_all()

        try:
            await self.app(scope, receive, send)
        finally:
            async with self._came:
                self.is_over = True
                self._came.notify_all()

    async def next(self) -> Event | None:
        """Return the next event, None at the end. Skip everything else, such as comments.

        With a clock, let time pass until an event arrives.
        """
        while True:
            while self.clock is not None and not self._has_more():
                await self.clock.advance(1)
            async with asyncio.timeout(30), self._came:
                await self._came.wait_for(self._has_more)
            block, separator, _ = self.text[self._read :].partition("\n\n")
            if not separator:
                return None
            self._read += len(block) + 2
            lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "event" in lines:
                return Event(lines["event"], lines.get("id"), json.loads(lines["data"]))

    def _has_more(self) -> bool:
        return self.is_over or "\n\n" in self.text[self._read :]

    def leave(self) -> None:
        """Disconnect, like a browser whose tab is closed."""
        self._left.set()


@asynccontextmanager
async def stream(app: Any, path: str, *, clock: Clock | None = None, **headers: str) -> Any:
    """Open a stream, and disconnect at the end of the block."""
    opened = Stream(app, path, {name.replace("_", "-"): value for name, value in headers.items()}, clock)
    running = asyncio.create_task(opened.run())
    try:
        yield opened
    finally:
        opened.leave()
        async with asyncio.timeout(30):
            await running
