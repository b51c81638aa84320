"""Workflows of the soak: their steps, which write what they are handed, and the shapes they are put together in.

Each step has a slot of its own in the table of effects, by which the plan in the ledger names it, and returns it.
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
"""Seconds a workflow is kept after its end where its keys have to be gone in the end."""
LARGE = 230
"""Members of a group that takes more than one batch."""

Fate = Literal["done", "failed", "skipped"]


@app.task(name="begin")
def begin(slot: int, failures: int = 0) -> int:
    """Have nothing before it."""
    program.note("step", slot=slot, got=None)
    if current_task().attempt <= failures:
        raise ExpectedFailureError("on purpose")
    program.effects.put(slot)
    return slot


@app.task(name="begin_slowly")
def begin_slowly(slot: int, seconds: float) -> int:
    program.note("step", slot=slot, got=None)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(0.05, left))
    program.effects.put(slot)
    return slot


@app.task(name="then")
async def then(got: Any, slot: int) -> int:
    """Come after one step, or after a group, whose results it is handed."""
    program.note("step", slot=slot, got=got)
    program.effects.put(slot)
    return slot


_PLACES = [Concurrency(each.number) for each in LIMITS["limited_step"] if isinstance(each, Places)]


@app.task(name="limited_step", concurrency=_PLACES)
async def limited_step(got: Any, slot: int) -> int:
    """Wait for a place: its limits are asked when a worker takes it."""
    program.note("step", slot=slot, got=got)
    program.effects.put(slot)
    return slot


@app.task(name="join")
async def join(left: Any, right: Any, slot: int) -> int:
    program.note("step", slot=slot, got=[left, right])
    program.effects.put(slot)
    return slot


@app.task(name="broken", max_retry=1)
def broken(got: Any, slot: int) -> int:
    """Fail for good."""
    program.note("step", slot=slot, got=got)
    raise ExpectedFailureError("on purpose")


@app.task(name="grow")
def grow(slot: int, more: list[int]) -> int:
    """Add members to its own group."""
    program.note("step", slot=slot, got=None)
    app.extend_group(begin.s(each) for each in more)
    program.effects.put(slot)
    return slot


@app.task(name="alarm")
async def alarm(failure: StepFailure, slot: int) -> None:
    program.note("step", slot=slot, got=failure["step"])
    program.effects.put(slot)


@app.task(name="clean_up")
async def clean_up(slot: int) -> None:
    program.note("step", slot=slot, got=None)
    program.effects.put(slot)


@dataclass(slots=True)
class Shape:
    """A workflow, and what has to become of it.

    Attributes:
        steps: Of each its slot, the slots of what it comes after, what it is handed, and its fate.
        state: How the whole ends.
    """

    kind: str
    workflow: Any
    steps: list[tuple[int, list[int], Any, Fate]] = field(default_factory=list)
    state: str = "succeeded"


class Shapes:
    """Draws workflows.

    Args:
        draw: What they are drawn from.
        slot: Gives a slot that no other has.
    """

    def __init__(self, draw: random.Random, slot: Callable[[], int]) -> None:
        self._draw = draw
        self._slot = slot

    def next(self) -> Shape:
        """Return the next: at home in either queue, and kept, or gone soon after its end."""
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
        """A group whose members come from a generator, now and then in several batches."""
        *members, last = self._slots(LARGE if self._draw.random() < 0.1 else 7)
        calls = [self._begin(each) for each in members]
        return self._of_group("stream", group(each for each in calls) | self._call(then.s(last)), members, last)

    def growing(self) -> Shape:
        """A group to which one of its members adds two, which may run before the others."""
        first, second, third, fourth, last = self._slots(5)
        calls = [self._begin(first), self._call(grow.s(second, [third, fourth]))]
        return self._of_group("growing", chord(calls, self._call(then.s(last))), [first, second, third, fourth], last)

    def _of_group(self, kind: str, workflow: Any, members: list[int], last: int) -> Shape:
        steps: list[tuple[int, list[int], Any, Fate]] = [(each, [], None, "done") for each in members]
        return Shape(kind, workflow, [*steps, (last, members, members, "done")])

    def diamond(self) -> Shape:
        """Out to two queues and together again."""
        a, b, c, d, e = self._slots(5)
        workflow = (
            Workflow("diamond", kept=SHORT_S)
            .step("a", self._begin(a))
            .step("b", then.s(b), after="a", queue="default")
            .step("c", limited_step.s(c), after="a", queue="bulk")
            .step("d", self._call(join.s(d)), after=("b", "c"))
            .on_success(self._call(then.s(e)))
        )
        steps: list[tuple[int, list[int], Any, Fate]] = [
            (a, [], None, "done"),
            (b, [a], a, "done"),
            (c, [a], a, "done"),
            (d, [b, c], [b, c], "done"),
            (e, [d], d, "done"),
        ]
        return Shape("diamond", workflow, steps)

    def failing(self) -> Shape:
        """What comes after a failure is skipped; callbacks are told."""
        a, b, c, d, e = self._slots(5)
        parts = (self._begin(a), self._call(broken.s(b)), self._call(then.s(c)))
        workflow = chain(*parts).on_error(self._call(alarm.s(d))).on_complete(self._call(clean_up.si(e)))
        steps: list[tuple[int, list[int], Any, Fate]] = [
            (a, [], None, "done"),
            (b, [a], a, "failed"),
            (c, [b], None, "skipped"),
            (d, [b], "broken", "done"),
            (e, [a, b], None, "done"),
        ]
        return Shape("failing", workflow, steps, "failed")

    def tolerant(self) -> Shape:
        """What comes after a failure runs all the same, with nothing in the place of the result."""
        a, b, c = self._slots(3)
        workflow = (
            Workflow("tolerant", kept=SHORT_S)
            .step("a", self._begin(a))
            .step("b", self._call(broken.s(b)), after="a", on_failure="continue")
            .step("c", self._call(then.s(c)), after="b")
        )
        return Shape("tolerant", workflow, [(a, [], None, "done"), (b, [a], a, "failed"), (c, [b], None, "done")])
