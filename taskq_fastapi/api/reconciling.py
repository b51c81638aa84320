"""Look for damage in the background of the app, and tell request by request how far it is.

A look goes through all tasks of a queue and waits some seconds before it judges, so no request can wait for it. It goes
on in the process that began it. What it has found is noted in Redis as it goes, so any process of the app can tell. If
the process ends, so does the look, and the note that nobody renews expires.
"""

import asyncio
import logging
import re
import secrets

from fastapi import HTTPException

from taskq_core import BrokerError, ConfigurationError
from taskq_core.broker.operations import repair as repair_ops
from taskq_core.broker.plans import ask
from taskq_core.inspector import AsyncInspector
from taskq_core.inspector.known import known_queue
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit

logger = logging.getLogger("taskq.fastapi")

LOOKS_MAX = 4
"""Most looks that one process has in its background."""
NOTED_EVERY_S = 1.0
ALIVE_S = 30
"""Seconds that a note is kept while its look goes on."""
KEPT_S = 600
"""Seconds that a note is kept when its look has ended."""
_ASKED_EVERY_S = 0.1
_ID = re.compile("[0-9a-f]{32}")


class Looks:
    """The looks of one router.

    Args:
        inspector: What looks.
    """

    def __init__(self, inspector: AsyncInspector) -> None:
        self._inspector = inspector
        self._running: set[asyncio.Task[None]] = set()

    async def begin(self, queue: str, *, repair: bool, audit: Audit) -> str:
        """Begin a look and return its id.

        Raises:
            QueueNotFoundError: No queue has this name.
            HTTPException: Too many are under way in this process.
        """
        await self._inspector.run_plan(lambda keys: known_queue(keys, queue))
        if len(self._running) >= LOOKS_MAX:
            raise HTTPException(429, f"{LOOKS_MAX} queues are looked through already: wait until one is done")
        look_id = secrets.token_hex(16)
        state = models.Reconciliation(
            queue=queue, scanned=0, about=0, findings=[], repaired=0, is_complete=False, failure=None, next=look_id
        )
        await self._note(look_id, state, ALIVE_S)
        running = asyncio.create_task(self._look(look_id, state, repair=repair, audit=audit))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return look_id

    async def follow(self, queue: str, look_id: str, *, for_s: float) -> models.Reconciliation:
        """Wait until a look has ended, but not for long, and return how far it is.

        Raises:
            ConfigurationError: It is no id of a look.
            HTTPException: The look was cut off, or ended long ago.
        """
        if not _ID.fullmatch(look_id):
            raise ConfigurationError(f"cursor must come from the answer before, got {look_id[:80]!r}")
        loop = asyncio.get_running_loop()
        end = loop.time() + for_s
        while True:
            noted = await self._inspector.run_plan(lambda keys: ask(repair_ops.read_look(keys.queue(queue), look_id)))
            state = None if noted is None else models.Reconciliation.model_validate_json(noted)
            if loop.time() >= end or (state is not None and state.next is None):
                break
            await asyncio.sleep(_ASKED_EVERY_S)
        if state is None:
            raise HTTPException(409, "this look was cut off, or ended long ago: begin again, without a cursor")
        return state

    async def _look(self, look_id: str, state: models.Reconciliation, *, repair: bool, audit: Audit) -> None:
        queue = state.queue

        def progress(scanned: int, about: int) -> None:
            state.scanned, state.about = scanned, about

        with audit.action("reconcile", queue=queue, repair=repair) as outcome:
            look = asyncio.ensure_future(self._inspector.reconcile(queue, repair=repair, progress=progress))
            try:
                while not (await asyncio.wait({look}, timeout=NOTED_EVERY_S))[0]:
                    await self._try_to_note(look_id, state, ALIVE_S)
            finally:
                look.cancel()
            error = look.exception()
            if error is None:
                report = look.result()
                outcome |= {"findings": len(report.findings), "repaired": report.repaired}
                found = models.ReconcileReport.model_validate(report)
                state = models.Reconciliation(**dict(found), about=report.scanned, failure=None, next=None)
            else:
                if not isinstance(error, BrokerError):
                    logger.error("a look for damage in %r failed", queue, exc_info=error)
                outcome["failure"] = type(error).__name__
                state.failure, state.next = "it failed on the way; the log of the server says more", None
        await self._try_to_note(look_id, state, KEPT_S)

    async def _note(self, look_id: str, state: models.Reconciliation, kept_s: int) -> None:
        told = state.model_dump_json()
        await self._inspector.run_plan(
            lambda keys: ask(repair_ops.note_look(keys.queue(state.queue), look_id, told, kept_s=kept_s))
        )

    async def _try_to_note(self, look_id: str, state: models.Reconciliation, kept_s: int) -> None:
        try:
            await self._note(look_id, state, kept_s)
        except BrokerError as error:
            logger.warning("how far a look for damage in %r is could not be noted: %s", state.queue, error)
