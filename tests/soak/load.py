"""The load: random tasks and workflows that producers enqueue. Each task has a separate slot in `effects`."""

import random
from dataclasses import dataclass, field
from typing import Any

from taskq_core.tasks.canvas import Signature
from tests.soak import durable, program, rules
from tests.soak.flows import SHORT_S, Shape, Shapes

CANARY = "canary-7d41c6"
"""A text in the payload of every tenth task, which must not appear anywhere else."""
UNIQUE_KEYS = 12
ONCE_KEYS = 300
"""Number of keys for the task `once`, which may be accepted once per key."""
KEYS = 6
"""Number of keys for limits and sequences."""
FLOWS = 0.025
"""Share of workflows in the load."""

_PLAIN = {
    "quick": 30,
    "aquick": 30,
    "kept": 7,
    "slow": 2.5,
    "aslow": 2.5,
    "flaky": 4,
    "hopeless": 1,
    "unique": 3,
    "later": 9,
}
_RULED = {
    "placed": 1.5,
    "placed_by": 1.5,
    "rated": 1,
    "rated_by": 1,
    "strict": 1,
    "ordered": 1.5,
    "skipping": 1,
    "only": 1,
    "once": 1,
    "walk": 0.4,
    "ranked": 2,
    "late": 1,
    "durable": 1.5,
}


@dataclass(frozen=True, slots=True)
class Call:
    """A task to enqueue, and the facts that the producer records."""

    id: str
    signature: Signature[Any]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Flow:
    """A workflow to enqueue. The ledger identifies it by name, because its id is not known before it was sent."""

    name: str
    shape: Shape
    is_kept: bool
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of steps."""
        return len(self.shape.steps)


class Mixture:
    """Generates random tasks and workflows.

    Args:
        producer: Number of the producer, which determines its range of slots.
        seed: Seed of the random numbers.
    """

    def __init__(self, producer: int, seed: str) -> None:
        self._producer = producer
        self._draw = random.Random(seed)
        self._count = self._slots = 0
        self._shapes = Shapes(self._draw, self._slot)

    def _slot(self) -> int:
        self._slots += 1
        return self._producer * 1_000_000 + self._slots

    def next(self) -> Call | Flow:
        """Return the next task or workflow."""
        return self.next_flow() if self._draw.random() < FLOWS else self.next_call()

    def next_flow(self) -> Flow:
        """Return the next workflow. Some are deleted soon after their end."""
        self._count += 1
        shape = self._shapes.next()
        is_kept = shape.kind not in {"diamond", "tolerant"}  # their shapes set a short retention
        if is_kept and self._draw.random() < 0.3:
            shape.workflow, is_kept = shape.workflow.kept(SHORT_S), False
        steps = [list(each) for each in shape.steps]
        facts = {"kind": shape.kind, "steps": steps, "state": shape.state, "kept": is_kept}
        return Flow(f"w{self._producer}-{self._count}", shape, is_kept, facts)

    def next_call(self) -> Call:
        """Return the next task."""
        self._count += 1
        draw = self._draw
        kinds = {**_PLAIN, **_RULED}
        kind = draw.choices(list(kinds), list(kinds.values()))[0]
        options: dict[str, Any] = {"task_id": f"p{self._producer}-{self._count}"}
        slot = self._slot()
        facts: dict[str, Any] = {"slot": slot}
        signature = (
            self._ruled(kind, slot, options, facts) if kind in _RULED else self._plain(kind, slot, options, facts)
        )
        if draw.random() < 0.3 and kind not in ("unique", "only", "once"):
            options["queue"] = "bulk"
        signature = signature.using(**options)
        facts |= {"name": signature.task.name, "queue": signature.task.options.queue}
        return Call(options["task_id"], signature, facts)

    def _plain(self, kind: str, slot: int, options: dict[str, Any], facts: dict[str, Any]) -> Signature[Any]:
        draw = self._draw
        secret = f"{CANARY}-{slot}" if draw.random() < 0.1 else ""
        match kind:
            case "quick":
                return program.quick.s(slot, secret)
            case "later":
                options["run_after"] = draw.choice((1, 2, 4))
                return program.quick.s(slot, secret)
            case "aquick":
                return program.aquick.s(slot, secret)
            case "kept":
                facts["kept"] = True
                return program.kept.s(slot, secret)
            case "slow":
                return program.slow.s(slot, round(draw.uniform(0.3, 2.0), 2), secret)
            case "aslow":
                return program.aslow.s(slot, round(draw.uniform(0.3, 2.0), 2), secret)
            case "flaky":
                failures = draw.choice((1, 1, 2))
                facts["failures"] = failures
                return program.flaky.s(slot, failures, secret)
            case "hopeless":
                facts |= {"slot": None, "failures": 2, "hopeless": True}
                return program.hopeless.s(slot, secret)
        number = draw.randrange(UNIQUE_KEYS)
        key = f"key-{number}"
        options["headers"] = {"soak-key": key}
        facts |= {"slot": None, "key": key}
        return program.unique.s(key, 0.2 + 0.1 * number)

    def _ruled(self, kind: str, slot: int, options: dict[str, Any], facts: dict[str, Any]) -> Signature[Any]:
        draw = self._draw
        who = f"who-{draw.randrange(KEYS)}"
        match kind:
            case "placed":
                return rules.placed.s(slot, f"{CANARY}-{slot}" if draw.random() < 0.1 else "")
            case "placed_by":
                facts["limit_key"] = who
                return rules.placed_by.s(slot, who)
            case "rated":
                facts["cost"] = draw.choice((1, 1, 1, 2))
                return rules.rated.s(slot, facts["cost"])
            case "rated_by":
                facts["limit_key"] = who
                return rules.rated_by.s(slot, who)
            case "strict":
                facts |= {"limit_key": who, "failures": draw.choice((0, 0, 1))}
                return rules.strict.s(slot, who, facts["failures"])
            case "ordered":
                facts |= {"limit_key": who, "failures": draw.choice((0, 0, 0, 1))}
                return rules.ordered.s(slot, who, facts["failures"])
            case "skipping":
                facts["limit_key"] = who
                if draw.random() < 0.2:
                    facts |= {"slot": None, "failures": 2, "hopeless": True}
                return rules.skipping.s(facts["slot"], who)
            case "only":
                key = f"only-{draw.randrange(UNIQUE_KEYS)}"
                options["headers"] = {"soak-key": key}
                facts |= {"slot": None, "key": key}
                return rules.only.s(key, round(draw.uniform(0.2, 1.5), 2))
            case "once":
                facts["key"] = f"once-{draw.randrange(ONCE_KEYS)}"
                return rules.once.s(facts["key"], slot)
            case "walk":
                facts["items"] = draw.randint(10, 60)
                return draw.choice((rules.walk, rules.awalk)).s(slot, facts["items"])
            case "durable":
                return durable.durable.s(slot)
            case "ranked":
                facts["priority"] = options["priority"] = draw.choice((0, 0, 3, 9))
                return rules.ranked.s(slot)
        facts["expires"] = options["expires"] = draw.choice((1, 3, 8))
        return rules.late.s(slot)
