"""Carry workflow steps between queues, and find steps whose end was not reported.

The worker that leads the queue acts, with a lease, if the queue has due steps. The worker that settled a step acts at
once even if it is not the leader, because repeating a transfer does no harm. `taskq_core.workflow.dispatch` has the
rules.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.dispatch import read_due
from taskq_core.broker.operations.new_tasks import register_queue
from taskq_core.service.loop import jittered
from taskq_core.wire import Keys, QueueKeys
from taskq_core.worker.leadership import Leadership, Topic
from taskq_core.workflow.dispatch import Dispatch, Sweep, dispatch


class Dispatcher:
    """Dispatches workflow steps for the queues of one worker.

    Args:
        keys: Key names, to build those of other queues.
        queues: The queues of the worker.
        runner: Sends operations.
        owner: Token of the worker.
        every_s: Seconds between two checks for the leader.
        leader_s: Seconds the lease of a leader lasts.
        leaderships: Leadership of each queue, by name. A queue without one is always checked.
    """

    def __init__(
        self,
        keys: Keys,
        queues: Iterable[QueueKeys],
        runner: AsyncRunner,
        *,
        owner: str,
        every_s: float,
        leader_s: float,
        leaderships: Mapping[str, Leadership] = MappingProxyType({}),
    ) -> None:
        self._keys = keys
        self._queues = {queue.name: queue for queue in queues}
        self._runner = runner
        self._owner = owner
        self._every_s = every_s
        self._leader_ms = int(leader_s * 1000)
        self._rest_s = max(every_s, leader_s / 3)
        self._sweeps = {name: Sweep() for name in self._queues}
        self._urgent: set[str] = set()
        self._at_hand: str | None = None
        self._called = asyncio.Event()
        self._leaderships = leaderships
        for leadership in leaderships.values():
            leadership.wakes(self._called)
        self._leads = False
        self.has_looked = False
        """Whether it has looked at every queue once."""

    def call(self, queue: str) -> None:
        """Let it look at a queue at once."""
        self._urgent.add(queue)
        self._called.set()

    @property
    def is_busy(self) -> bool:
        """Whether it knows of something to carry."""
        return bool(self._urgent) or self._at_hand is not None

    async def work(self) -> float:
        """Carry what there is; return 0, once it is time to look again."""
        while self._urgent:
            name = self._at_hand = self._urgent.pop()  # before it is read: whoever calls meanwhile has written more
            try:
                self._urgent |= await self._look(self._keys.queue(name), owner="")
            except BaseException:
                self._urgent.add(name)
                raise
            finally:
                self._at_hand = None
        self._leads = False
        self._called.clear()
        others: set[str] = set()
        wanted = [name for name in self._queues if self._may_have_work(name)]
        for name in wanted:
            queue = self._queues[name]
            self._urgent |= await self._look(queue, owner=self._owner, sweep=self._sweeps[name], others=others)
        for name in others - self._queues.keys():  # perhaps only Go serves them
            sweep = self._sweeps.setdefault(name, Sweep())
            self._urgent |= await self._look(self._keys.queue(name), owner="", sweep=sweep)
        self.has_looked = True
        if not self._urgent:
            rest_s = self._every_s if self._leads else self._rest_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(jittered(rest_s) if wanted else None):
                    await self._called.wait()
        return 0

    def _may_have_work(self, queue: str) -> bool:
        leadership = self._leaderships.get(queue)
        return leadership is None or not leadership.has_looked or leadership.has(Topic.WORKFLOWS)

    async def _look(
        self, queue: QueueKeys, *, owner: str, sweep: Sweep | None = None, others: set[str] | None = None
    ) -> set[str]:
        due = await self._runner.run(read_due(queue, owner=owner, leader_ms=self._leader_ms))
        if not due.leads:
            return set()
        self._leads = True
        if others is not None:
            others.update(due.queues)
        more = await self._follow(
            dispatch(self._keys, queue, due, lambda other: register_queue(self._keys.queues, (other.name,)))
        )
        if sweep is not None and due.steps:
            more |= await self._follow(sweep.look(queue, due))
        return more

    async def _follow(self, plan: Dispatch) -> set[str]:
        answer = None
        try:
            while True:
                answer = await self._runner.run(plan.send(answer))
        except StopIteration as end:
            found: set[str] = end.value
            return found
