"""A producer process of the soak: `python -m tests.soak.producer <JSON>`, with Redis's URL in `SOAK_URL`.

It enqueues at a steady rate until SIGTERM. After a delay it is faster for a while. Before each enqueue it records an
attempt, afterwards the result: acknowledged, refused (certainly not enqueued) or unknown. It does not repeat an
enqueue with an unknown result, because that is the user's decision.
"""

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskq_core.errors import BulkEnqueueError, EnqueueError, EnqueueUnknownError, NotReplicatedError
from tests.soak.ledger import Ledger
from tests.soak.load import Call, Flow, Mixture
from tests.soak.program import app, open_ledger

BACKLOG_S = 3.0
"""Maximum delay, in seconds of load, that a producer catches up with."""


class Pace:
    """Determines when the next enqueue is due."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._next = time.monotonic()

    def wait_s(self, count: int = 1) -> float:
        """Return the seconds to wait before the next `count` enqueues."""
        now = time.monotonic()
        self._next = max(self._next + count * self._step, now - BACKLOG_S)
        return max(0.0, self._next - now)


def attempt(ledger: Ledger, call: Call | Flow) -> None:
    if isinstance(call, Flow):
        ledger.write("flow attempt", flow=call.name, **call.facts)
    else:
        ledger.write("attempt", id=call.id, **call.facts)


def record_answer(ledger: Ledger, task_id: str, error: BaseException | None, *, is_existing: bool = False) -> None:
    """Record the result of an enqueue."""
    if is_existing:
        ledger.write("refused", id=task_id, why="the unique key is held")
    elif error is None:
        ledger.write("acknowledged", id=task_id)
    elif isinstance(error, EnqueueUnknownError | NotReplicatedError):  # a failover may lose an unconfirmed task
        ledger.write("unknown", id=task_id)
    else:
        cause = type(error.__cause__ or error).__name__
        ledger.write("refused", id=task_id, why=f"{type(error).__name__}/{cause}")


def record_workflow_answer(
    ledger: Ledger, flow: Flow, workflow_id: str, queue: str, error: BaseException | None = None
) -> None:
    """Record the result of enqueueing a workflow, and the workflow's id."""
    common: dict[str, Any] = {"flow": flow.name, "workflow": workflow_id, "queue": queue}
    if error is None:
        ledger.write("flow acknowledged", **common)
    elif isinstance(error, EnqueueUnknownError | NotReplicatedError):
        ledger.write("flow unknown", **common)
    else:
        ledger.write("flow refused", **common, why=type(error.__cause__ or error).__name__)


def size(call: Call | Flow) -> int:
    """Return the number of tasks."""
    return call.size if isinstance(call, Flow) else 1


def blocking(ledger: Ledger, mixture: Mixture, pace: Pace, draw: random.Random) -> None:
    """Enqueue with the blocking client, one task after the other, sometimes twenty in bulk."""
    while not _stopping:
        if draw.random() < 0.02:
            calls = [mixture.next_call() for _ in range(20)]
            time.sleep(pace.wait_s(len(calls)))
            enqueue_together(ledger, calls)
            continue
        call = mixture.next()
        time.sleep(pace.wait_s(size(call)))
        attempt(ledger, call)
        if isinstance(call, Flow):
            try:
                begun = call.shape.workflow.delay()
            except EnqueueError as error:
                record_workflow_answer(ledger, call, error.task_id, error.queue, error)
            else:
                record_workflow_answer(ledger, call, begun.id, begun.queue)
            continue
        try:
            handle = app.enqueue(call.signature)
        except EnqueueError as error:
            record_answer(ledger, call.id, error)
        else:
            record_answer(ledger, call.id, None, is_existing=handle.existing)


def enqueue_together(ledger: Ledger, calls: Sequence[Call]) -> None:
    """Enqueue tasks in bulk. If that fails without a result for each task, record all results as unknown."""
    for call in calls:
        attempt(ledger, call)
    try:
        result = app.client.enqueue_many(call.signature for call in calls)
    except BulkEnqueueError:
        for call in calls:
            ledger.write("unknown", id=call.id)
        return
    for task_id in result.ids:
        record_answer(ledger, task_id, None)
    for error in result.errors:
        record_answer(ledger, error.task_id, error)


async def concurrent(ledger: Ledger, mixture: Mixture, pace: Pace) -> None:
    """Enqueue with the asyncio client, up to thirty tasks at a time, as requests of a web application do."""
    places = asyncio.Semaphore(30)

    async def one(call: Call | Flow) -> None:
        attempt(ledger, call)
        try:
            if isinstance(call, Flow):
                await begin(call)
            else:
                await enqueue(call)
        finally:
            places.release()

    async def begin(flow: Flow) -> None:
        try:
            begun = await flow.shape.workflow.adelay()
        except EnqueueError as error:
            record_workflow_answer(ledger, flow, error.task_id, error.queue, error)
        else:
            record_workflow_answer(ledger, flow, begun.id, begun.queue)

    async def enqueue(call: Call) -> None:
        try:
            handle = await app.aenqueue(call.signature)
        except EnqueueError as error:
            record_answer(ledger, call.id, error)
        else:
            record_answer(ledger, call.id, None, is_existing=handle.existing)

    async with asyncio.TaskGroup() as group:
        while not _stopping:
            call = mixture.next()
            await asyncio.sleep(pace.wait_s(size(call)))
            await places.acquire()
            group.create_task(one(call))
    await app.aclose()


def on_commit(ledger: Ledger, mixture: Mixture, pace: Pace, draw: random.Random, folder: Path) -> None:
    """Enqueue in Django transactions, one of ten of which is rolled back."""
    import django
    from django.conf import settings

    name = str(folder / f"django-{os.getpid()}.db")
    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}}, USE_TZ=True)
    django.setup()
    from django.db import connection, transaction

    from taskq_django.transaction import CommitHook

    app.configure(app.settings, transaction=CommitHook(app))
    logging.getLogger("django.db.backends.base").setLevel(logging.CRITICAL)  # Django logs errors that are in the ledger
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (task TEXT)")
    while not _stopping:
        calls = [mixture.next() for _ in range(draw.choice((1, 1, 3)))]
        time.sleep(pace.wait_s(sum(map(size, calls))))
        is_rolled_back = draw.random() < 0.1
        for call in calls:
            attempt(ledger, call)
        handles: list[Any] = []
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    names = [call.name if isinstance(call, Flow) else call.id for call in calls]
                    cursor.executemany("INSERT INTO orders VALUES (%s)", [(name,) for name in names])
                handles += [
                    call.shape.workflow.delay() if isinstance(call, Flow) else app.enqueue(call.signature)
                    for call in calls
                ]
                if is_rolled_back:
                    raise _RollBackError
        except _RollBackError:
            pass
        for call, handle in zip(calls, handles, strict=True):
            if isinstance(call, Flow):
                answer = "refused" if is_rolled_back else "acknowledged" if handle.is_sent else "unknown"
                ledger.write(f"flow {answer}", flow=call.name, workflow=handle.id, queue=handle.queue)
            elif is_rolled_back:
                ledger.write("refused", id=call.id, why="rolled back")
            elif handle.is_sent:
                record_answer(ledger, call.id, None, is_existing=handle.existing)
            else:
                ledger.write("unknown", id=call.id)


class _RollBackError(Exception):
    pass


_stopping = False


def _stop(*_: object) -> None:
    global _stopping
    _stopping = True


def main() -> int:
    given = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _stop)
    folder, seed = Path(given["folder"]), given["seed"]
    ledger = open_ledger(folder, given["who"])
    mixture, pace = Mixture(given["number"], seed), Pace(given["rate"])
    (folder / f"{given['who']}-{os.getpid()}.ready").touch()
    match given["kind"]:
        case "blocking":
            blocking(ledger, mixture, pace, random.Random(seed))
        case "concurrent":
            asyncio.run(concurrent(ledger, mixture, pace))
        case "on_commit":
            on_commit(ledger, mixture, pace, random.Random(seed), folder)
        case kind:
            raise ValueError(f"unknown kind of producer {kind!r}, expected blocking, concurrent or on_commit")
    app.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
