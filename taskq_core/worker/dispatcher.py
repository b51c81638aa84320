"""Dispatch workflow steps between queues, and find steps whose end was not reported to their workflow.

The worker that leads a queue dispatches its due steps, under a lease. The worker that settled a step also dispatches
the next steps at once, without the lease, because a repeated transfer does no harm. See `taskq_core.workflow.dispatch`
for the rules.

Go's tools may run the archived task of a failed step again, and Go's workers do not report its success. So every ten
seconds the leader also checks the failed steps.
"""

import math
from collections.abc import Mapping

from taskq_core.broker.operations.dispatch import SWEEP_MAX, follow_failed, read_due
from taskq_core.broker.operations.new_tasks import register_queue
from taskq_core.broker.plans import arun_plan
from taskq_core.service.loop import Signal, jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext, WorkerService
from taskq_core.worker.leadership import Leadership, Topic
from taskq_core.workflow.dispatch import Sweep, dispatch

FOLLOW_S = 10.0
"""Seconds between two checks of the failed steps of a queue."""
FOLLOWED_MAX = 10_000
"""Maximum number of failed steps of a queue that are checked: the default size of the archive."""


class Dispatcher(WorkerService):
    """Dispatches workflow steps for the queues of one worker.

    Args:
        context: The worker.
        leaderships: Leadership of each queue, by name.
    """

    name = "dispatcher"

    def __init__(self, context: WorkerContext, leaderships: Mapping[str, Leadership]) -> None:
        super().__init__(context)
        self.leader_keys = [queue.leader("carrier") for queue in context.queues]
        self._keys = context.keys
        self._queues = {queue.name: queue for queue in context.queues}
        self._every_s = context.config.span("dispatch_every")
        lease_s = max(context.leader_s, 3 * self._every_s)
        self._leader_ms = int(lease_s * 1000)
        self._rest_s = max(self._every_s, lease_s / 3)
        self._sweeps = {name: Sweep() for name in self._queues}
        self._urgent: set[str] = set()
        self._in_progress: str | None = None
        self._called = Signal()
        self._leaderships = leaderships
        for leadership in leaderships.values():
            leadership.signal(self._called)
        self._leads = self._has_checked = False
        self._followed_at = -math.inf

    def call(self, queue: str) -> None:
        """Dispatch the waiting workflow steps of a queue at once, in the background."""
        self._urgent.add(queue)
        self._called.set()

    @property
    def is_idle(self) -> bool:
        """Whether all queues were checked, and no transfer of steps is due or in progress."""
        return self._has_checked and not self._urgent and self._in_progress is None

    async def work(self) -> float:
        """Dispatch all due workflow steps, and wait until the next check.

        Return 0, so that the caller calls this method again at once.
        """
        while self._urgent:
            # Remove the queue from `_urgent` before dispatching its steps, so that a `call` meanwhile can add the queue
            # again.
            name = self._in_progress = self._urgent.pop()
            try:
                self._urgent |= await self._dispatch_due(self._keys.queue(name), owner="")
            except BaseException:
                self._urgent.add(name)
                raise
            finally:
                self._in_progress = None
        self._leads = False
        self._called.clear()
        others: set[str] = set()
        wanted = [name for name in self._queues if self._may_have_work(name)]
        for name in wanted:
            queue = self._queues[name]
            self._urgent |= await self._dispatch_due(
                queue, owner=self._context.token, sweep=self._sweeps[name], others=others
            )
        # Also dispatch steps of queues that this worker does not serve. Perhaps only Go workers serve them, which
        # dispatch none.
        for name in others - self._queues.keys():
            sweep = self._sweeps.setdefault(name, Sweep())
            self._urgent |= await self._dispatch_due(self._keys.queue(name), owner="", sweep=sweep)
        self._has_checked = True
        follow_in_s = await self._follow_failed()
        if not self._urgent:
            rest_s = (self._every_s if self._leads else self._rest_s) if wanted else math.inf
            rest_s = min(rest_s, follow_in_s)
            await self._called.wait_for(None if rest_s == math.inf else jittered(rest_s))
        return 0

    def _may_have_work(self, queue: str) -> bool:
        leadership = self._leaderships[queue]
        return not leadership.has_checked or leadership.has(Topic.WORKFLOWS)

    async def _follow_failed(self) -> float:
        """Check the failed steps if that is due. Return the seconds until the next check, infinity without any."""
        led = [queue for name, queue in self._queues.items() if self._leaderships[name].has(Topic.FAILED_STEPS)]
        left_s = self._followed_at + FOLLOW_S - self._context.clock.monotonic()
        if not led:
            return math.inf
        if left_s > 0:
            return left_s
        self._followed_at = self._context.clock.monotonic()
        others: set[str] = set()
        for queue in led:
            others |= await self._follow(queue)
        for name in others - self._queues.keys():
            await self._follow(self._keys.queue(name))
        return FOLLOW_S

    async def _follow(self, queue: QueueKeys) -> set[str]:
        """Check the failed steps of a queue. Return the names of the other queues of its workflows."""
        first = 0
        while True:
            found = await self._runner.run(follow_failed(queue, first=first))
            if found.has_ends:
                self._urgent.add(queue.name)
            first += found.checked - found.gone
            if found.checked < SWEEP_MAX or first >= FOLLOWED_MAX:
                return set(found.queues)

    async def _dispatch_due(
        self, queue: QueueKeys, *, owner: str, sweep: Sweep | None = None, others: set[str] | None = None
    ) -> set[str]:
        due = await self._runner.run(read_due(queue, owner=owner, leader_ms=self._leader_ms))
        if not due.leads:
            return set()
        self._leads = True
        if others is not None:
            others.update(due.queues)
        plan = dispatch(self._keys, queue, due, lambda other: register_queue(self._keys.queues, (other.name,)))
        more = await arun_plan(plan, self._runner.run)
        if sweep is not None and due.steps:
            more |= await arun_plan(sweep.check(queue, due), self._runner.run)
        return more
