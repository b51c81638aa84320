"""Settle runs and dequeue tasks by one script call where that is possible.

A worker of quick tasks settles a batch and dequeues the next one in each turn. One script for both costs Redis less
than two scripts. But the fused script only settles tasks that need no further notification. For any other batch it does
nothing, and the worker sends the two scripts instead. Only Redis knows whether a caller waits for a task, so the worker
has to try. Each refusal in a row doubles the number of turns until the next try.
"""

from collections.abc import Sequence
from typing import Any

from taskq_core.broker.operations.operation import BATCH_MAX, Operation
from taskq_core.broker.operations.runs import Dequeued, SettleCode, settle_and_dequeue
from taskq_core.errors import BrokerError
from taskq_core.wire import QueueKeys
from taskq_core.worker.settler import SettleBatch

RUNS_MIN = 2
"""Minimum number of outcomes for which the fused script is used. For fewer, two scripts cost little more."""
APART_MAX = 256
"""Maximum number of turns with two scripts after the fused script refused a batch."""


class FusedExchange:
    """Combines a settle batch and a dequeue from the same queue into one script call."""

    def __init__(self) -> None:
        self._apart = 0  # number of exchanges that use separate scripts before the fused script is tried again
        self._refusals = 0  # number of consecutive refusals of the fused script

    def join(
        self, batches: Sequence[SettleBatch], queue: QueueKeys, asked: Operation[Dequeued]
    ) -> Operation[Dequeued | None] | None:
        """Return one operation that settles the batch and runs the dequeue `asked`.

        Return None if two operations must be sent. The dequeue must not have been sent before.
        """
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
        """Split the reply of the fused script into a reply to the batch and one to the dequeue.

        Return None if the fused script refused or failed, so that the caller has to send two operations.
        """
        if isinstance(answer, Dequeued):
            self._refusals = 0
            return [SettleCode.SETTLED * len(batch.runs), answer]
        self._refusals += 1
        self._apart = min(2**self._refusals, APART_MAX)
        if isinstance(answer, BrokerError):  # the fused script may have settled some runs before it failed
            for run in batch.runs:
                run.repeated = True
        return None
