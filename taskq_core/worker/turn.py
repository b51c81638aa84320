"""The state of the current dequeue of one pipeline, until Redis answers it or the worker calls it off."""

from dataclasses import dataclass

from taskq_core.broker.operations.operation import BATCH_MAX, Operation
from taskq_core.broker.operations.runs import Dequeued, dequeue
from taskq_core.broker.pipelines import Pipeline
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext


@dataclass(slots=True, eq=False, repr=False)
class Turn:
    """The current dequeue of one pipeline. The same object is used for the next dequeue.

    Attributes:
        context: The worker.
        pipeline: A reserved connection.
        name: Name of the pipeline, unique within the worker.
        share: Maximum number of tasks per dequeue.
        is_ahead: Whether its dequeues follow a wait for a wake token in the same write.
        call: Number of the last dequeue.
        queue: Queue of the dequeue.
        asked: Number of tasks that the dequeue requested.
        in_doubt: The dequeue, until Redis has answered it or it was called off; then None. While it is in doubt, Redis
            may have handed out tasks that the worker does not know.
        is_repeat: Whether the dequeue was sent before, without a reply.
        is_off: Whether the worker called off the dequeue. Tasks that the dequeue handed out then go back to their
            queue.
        started_ns: Unix time in ns at which the last round trip began, for spans.
        used_at: Monotonic time of the last round trip.
    """

    context: WorkerContext
    pipeline: Pipeline
    name: str
    share: int = BATCH_MAX
    is_ahead: bool = False
    call: int = 0
    queue: QueueKeys | None = None
    asked: int = 0
    in_doubt: Operation[Dequeued] | None = None
    is_repeat: bool = False
    is_off: bool = False
    started_ns: int = 0
    used_at: float = 0.0

    def ask(self, queue: QueueKeys, limit: int, *, call: int, max_active: int | None) -> None:
        """Prepare a new dequeue from a queue. The dequeue is sent with the next round trip."""
        context = self.context
        self.call = call
        self.queue = queue
        self.asked = limit
        self.is_repeat = self.is_off = False
        self.in_doubt = dequeue(
            queue,
            owner=context.token,
            lane=self.name,
            call=call,
            limit=limit,
            lease_s=context.lease_s,
            lock_s=context.lock_s,
            with_waits=context.metrics.is_active,
            max_active=max_active,
            max_message=context.app.settings.max_message_bytes,
        )

    def call_off(self) -> Operation[Dequeued]:
        """Return the operation that calls off the unanswered dequeue.

        Its answer has the tasks that the dequeue handed out.
        """
        assert self.queue is not None
        context = self.context
        return dequeue(
            self.queue, owner=context.token, lane=self.name, call=self.call, limit=0, lease_s=context.lease_s
        )
