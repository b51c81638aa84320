"""A mail server that stores received messages in memory."""

import asyncio
import threading
from collections.abc import Awaitable
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Self

from aiosmtpd.smtp import SMTP, Envelope, Session


class MailServer:
    """Runs an SMTP server in a thread, on a free port of this machine, during a `with` block.

    Attributes:
        address: `host:port`.
        messages: The received messages.
    """

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail-server", daemon=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Store a message. aiosmtpd calls this method."""
        assert isinstance(envelope.content, bytes)
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: SMTP(self, hostname="studio"), "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}:
            task.cancel()

    def _run(self, awaitable: Awaitable[object]) -> object:
        async def run() -> object:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=10)

    def __enter__(self) -> Self:
        self._thread.start()
        server = self._run(self._listen())
        assert isinstance(server, asyncio.Server)
        self._server = server
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
