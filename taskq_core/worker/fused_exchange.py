"""Send outcomes and a request for tasks as one script, where both can go in one.

A worker of quick tasks settles a batch and asks for the next in each turn. One script for both costs Redis less than
two, but it settles only tasks of which nothing else is to be told: for any other batch it does nothing, and the two are
sent after it. Whether somebody waits for a task, Redis alone knows, so it is tried, and after each refusal in a row
half as often.
"""

from collections.abc import Sequence
from typing import Any

from taskq_core.broker.operations.operation import BATCH_MAX, Operation
from taskq_core.broker.operations.runs import Dequeued, SettleCode, settle_and_dequeue
from taskq_core.errors import BrokerError
from taskq_core.wire import QueueKeys
from taskq_core.worker.settler import SettleBatch

RUNS_MIN = 2
"""Fewest outcomes that are joined with a request: with fewer the two cost little."""
APART_MAX = 256
"""Most turns in a row in which it is not tried."""


class FusedExchange:
    """Joins outcomes with a request for tasks of the same queue."""

    def __init__(self) -> None:
        self._apart = 0  # turns in which it is not tried
        self._refusals = 0  # in a row

    def join(
        self, batches: Sequence[SettleBatch], queue: QueueKeys, asked: Operation[Dequeued]
    ) -> Operation[Dequeued | None] | None:
        """Return one operation for all of it, or None if they go apart. `asked` was never sent before."""
        if len(batches) != 1:
            return None
        batch = batches[0]
        if not batch.is_plain or batch.queue != queue or not RUNS_MIN <= len(batch.runs) <= BATCH_MAX:
            return None
        if self._apart > 0:
            self._apart -= 1
            return None
        return settle_and_dequeue([(run.task_id, run.number) for run in batch.runs], asked)

    def part(self, batch: SettleBatch, answer: Dequeued | BrokerError | None) -> list[Any] | None:
        """Return what the two would have answered; None if they are to be sent now."""
        if isinstance(answer, Dequeued):
            self._refusals = 0
            return [SettleCode.SETTLED * len(batch.runs), answer]
        self._refusals += 1
        self._apart = min(2**self._refusals, APART_MAX)
        if isinstance(answer, BrokerError):  # it may have settled some before it came upon what it failed for
            for run in batch.runs:
                run.repeated = True
        return None
