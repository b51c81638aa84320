"""Workflows of the soak: the tasks that are their steps, and the shapes that are composed of these steps.

Each step has a separate slot in the table of side effects, and returns the slot number. The ledger identifies steps by
their slots. A step records the results of its predecessors that were passed to it.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from taskq_core import Concurrency, Workflow, chain, chord, current_task, group
from taskq_core.tasks.canvas import Signature
from taskq_core.workflow import StepFailure
from tests.soak import program
from tests.soak.limits import LIMITS, Places
from tests.soak.program import ExpectedFailureError, app

QUEUES = ("default", "bulk")
SHORT_S = 2.0
"""Retention in seconds of workflows whose keys must be deleted before the end of the soak."""
LARGE = 230
"""Number of members of a group that does not fit into one batch."""

StepEnd = Literal["done", "failed", "skipped"]


@app.task(name="begin")
def begin(slot: int, failures: int = 0) -> int:
    """A step without predecessors."""
    program.record("step", slot=slot, got=None)
    if current_task().attempt <= failures:
        raise ExpectedFailureError("on purpose")
    program.effects.put(slot)
    return slot


@app.task(name="begin_slowly")
def begin_slowly(slot: int, seconds: float) -> int:
    program.record("step", slot=slot, got=None)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(0.05, left))
    program.effects.put(slot)
    return slot


@app.task(name="then")
async def then(got: Any, slot: int) -> int:
    """A step after another step or after a group. It gets the results as its first argument."""
    program.record("step", slot=slot, got=got)
    program.effects.put(slot)
    return slot


_PLACES = [Concurrency(each.number) for each in LIMITS["limited_step"] if isinstance(each, Places)]


@app.task(name="limited_step", concurrency=_PLACES)
async def limited_step(got: Any, slot: int) -> int:
    """A step with a concurrency limit."""
    program.record("step", slot=slot, got=got)
    program.effects.put(slot)
    return slot


@app.task(name="join")
async def join(left: Any, right: Any, slot: int) -> int:
    program.record("step", slot=slot, got=[left, right])
    program.effects.put(slot)
    return slot


@app.task(name="broken", max_retry=1)
def broken(got: Any, slot: int) -> int:
    """A step that always fails."""
    program.record("step", slot=slot, got=got)
    raise ExpectedFailureError("on purpose")


@app.task(name="grow")
def grow(slot: int, more: list[int]) -> int:
    """A group member that adds other members to the group."""
    program.record("step", slot=slot, got=None)
    app.extend_group(begin.s(each) for each in more)
    program.effects.put(slot)
    return slot


@app.task(name="alarm")
async def alarm(failure: StepFailure, slot: int) -> None:
    program.record("step", slot=slot, got=failure["step"])
    program.effects.put(slot)


@app.task(name="clean_up")
async def clean_up(slot: int) -> None:
    program.record("step", slot=slot, got=None)
    program.effects.put(slot)


@dataclass(slots=True)
class Shape:
    """A workflow and its expected result.

    Attributes:
        steps: For each step: its slot, the slots of its predecessors, the argument that it must get, and its end.
        state: Expected final state of the workflow.
    """

    kind: str
    workflow: Any
    steps: list[tuple[int, list[int], Any, StepEnd]] = field(default_factory=list)
    state: str = "succeeded"


class Shapes:
    """Generates random workflows.

    Args:
        draw: Source of random numbers.
        slot: Returns an unused slot.
    """

    def __init__(self, draw: random.Random, slot: Callable[[], int]) -> None:
        self._draw = draw
        self._slot = slot

    def next(self) -> Shape:
        """Return a new workflow. Its state is stored in a random queue."""
        makers = (self.chain, self.chord, self.stream, self.diamond, self.failing, self.tolerant, self.growing)
        shape = self._draw.choices(makers, (4, 3, 2, 4, 2, 2, 2))[0]()
        if self._draw.random() < 0.5:
            shape.workflow = shape.workflow.at_home(self._draw.choice(QUEUES))
        return shape

    def _call(self, call: Signature[Any]) -> Signature[Any]:
        return call.using(queue=self._draw.choice(QUEUES))

    def _begin(self, slot: int) -> Signature[Any]:
        draw = self._draw.random()
        if draw < 0.1:
            return self._call(begin_slowly.s(slot, round(self._draw.uniform(0.3, 2.5), 2)))
        return self._call(begin.s(slot, 1 if draw < 0.2 else 0))

    def _slots(self, count: int) -> list[int]:
        return [self._slot() for _ in range(count)]

    def chain(self) -> Shape:
        a, b, c = self._slots(3)
        follow = self._draw.choice((then, limited_step))
        parts = (self._begin(a), self._call(follow.s(b)), self._call(then.s(c)))
        return Shape("chain", chain(*parts), [(a, [], None, "done"), (b, [a], a, "done"), (c, [b], b, "done")])

    def chord(self) -> Shape:
        *members, last = self._slots(self._draw.randint(3, 6))
        workflow = chord([self._begin(each) for each in members], self._call(then.s(last)))
        return self._of_group("chord", workflow, members, last)

    def stream(self) -> Shape:
        """A group whose members come from a generator. One of ten has so many that it needs several batches."""
        *members, last = self._slots(LARGE if self._draw.random() < 0.1 else 7)
        calls = [self._begin(each) for each in members]
        return self._of_group("stream", group(each for each in calls) | self._call(then.s(last)), members, last)

    def growing(self) -> Shape:
        """A group in which one member adds two others, which may run before the first members."""
        first, second, third, fourth, last = self._slots(5)
        calls = [self._begin(first), self._call(grow.s(second, [third, fourth]))]
        return self._of_group("growing", chord(calls, self._call(then.s(last))), [first, second, third, fourth], last)

    def _of_group(self, kind: str, workflow: Any, members: list[int], last: int) -> Shape:
        steps: list[tuple[int, list[int], Any, StepEnd]] = [(each, [], None, "done") for each in members]
        return Shape(kind, workflow, [*steps, (last, members, members, "done")])

    def diamond(self) -> Shape:
        """A step, then two steps in different queues, then a step after both."""
        a, b, c, d, e = self._slots(5)
        workflow = (
            Workflow("diamond", kept=SHORT_S)
            .step("a", self._begin(a))
            .step("b", then.s(b), after="a", queue="default")
            .step("c", limited_step.s(c), after="a", queue="bulk")
            .step("d", self._call(join.s(d)), after=("b", "c"))
            .on_success(self._call(then.s(e)))
        )
        steps: list[tuple[int, list[int], Any, StepEnd]] = [
            (a, [], None, "done"),
            (b, [a], a, "done"),
            (c, [a], a, "done"),
            (d, [b, c], [b, c], "done"),
            (e, [d], d, "done"),
        ]
        return Shape("diamond", workflow, steps)

    def failing(self) -> Shape:
        """A chain with a step that fails: later steps are skipped, and the callbacks run."""
        a, b, c, d, e = self._slots(5)
        parts = (self._begin(a), self._call(broken.s(b)), self._call(then.s(c)))
        workflow = chain(*parts).on_error(self._call(alarm.s(d))).on_complete(self._call(clean_up.si(e)))
        steps: list[tuple[int, list[int], Any, StepEnd]] = [
            (a, [], None, "done"),
            (b, [a], a, "failed"),
            (c, [b], None, "skipped"),
            (d, [b], "broken", "done"),
            (e, [a, b], None, "done"),
        ]
        return Shape("failing", workflow, steps, "failed")

    def tolerant(self) -> Shape:
        """A chain with a step that fails and `on_failure="continue"`: the next step runs and gets None."""
        a, b, c = self._slots(3)
        workflow = (
            Workflow("tolerant", kept=SHORT_S)
            .step("a", self._begin(a))
            .step("b", self._call(broken.s(b)), after="a", on_failure="continue")
            .step("c", self._call(then.s(c)), after="b")
        )
        return Shape("tolerant", workflow, [(a, [], None, "done"), (b, [a], a, "failed"), (c, [b], None, "done")])
