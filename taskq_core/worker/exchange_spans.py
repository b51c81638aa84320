"""Record spans of a worker's requests to Redis, if the setting `TRACE["OPT_IN"]` enables them."""

from collections.abc import Sequence
from typing import Any

from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.errors import BrokerError
from taskq_core.settings import OptIn
from taskq_core.telemetry import Tracing
from taskq_core.wire import QueueKeys
from taskq_core.worker.run import Run
from taskq_core.worker.settler import SettleBatch


class ExchangeSpans:
    """Records the spans `settle <queue>` and `receive <queue>` of a worker's requests to Redis.

    Args:
        tracing: Records the spans.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._has_settle = OptIn.SETTLE in tracing.opt_in
        self._has_receive = OptIn.RECEIVE in tracing.opt_in

    @classmethod
    def wanted(cls, tracing: Tracing) -> "ExchangeSpans | None":
        """Create an instance. Return None if the settings enable neither kind of span."""
        spans = cls(tracing)
        return spans if spans._has_settle or spans._has_receive else None

    @staticmethod
    def now_ns() -> int:
        """Return the current Unix time in ns, for the start of a span."""
        return int(SYSTEM_CLOCK.time() * 1e9)

    def settled(self, batches: Sequence[SettleBatch], answers: Sequence[Any], started_ns: int) -> None:
        """Record a span for each settle batch that Redis answered, with codes or with an error."""
        if self._has_settle:
            for batch, answer in zip(batches, answers, strict=False):
                self._write_settle(batch, answer if isinstance(answer, BrokerError) else None, started_ns)

    def unanswered(self, batches: Sequence[SettleBatch], error: BaseException, started_ns: int) -> None:
        """Record a span for each settle batch whose request failed."""
        if self._has_settle:
            for batch in batches:
                self._write_settle(batch, error, started_ns)

    def _write_settle(self, batch: SettleBatch, error: BaseException | None, started_ns: int) -> None:
        spans = [run.span for run in batch.runs if run.span is not None]
        self._tracing.record_request(
            OptIn.SETTLE, batch.queue.name, spans, count=len(batch.runs), started_ns=started_ns, error=error
        )

    def received(self, queue: QueueKeys, runs: Sequence[Run], started_ns: int) -> None:
        """Record a span for tasks that a dequeue returned and the worker started."""
        if self._has_receive and runs:
            spans = [run.span for run in runs if run.span is not None]
            self._tracing.record_request(OptIn.RECEIVE, queue.name, spans, count=len(runs), started_ns=started_ns)
