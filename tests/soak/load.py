"""What producers enqueue: a mixture drawn from a seed, each task with a slot of its own in the table of effects."""

import random
from dataclasses import dataclass
from typing import Any

from taskq_core.task import Signature
from tests.soak import program

CANARY = "canary-7d41c6"
"""Stands in the payload of every tenth task, and nowhere else."""
UNIQUE_KEYS = 12


@dataclass(frozen=True, slots=True)
class Call:
    """One task to enqueue, and what the ledger is told of it."""

    id: str
    signature: Signature[Any]
    facts: dict[str, Any]


class Mixture:
    """Draws calls.

    Args:
        producer: Number of the producer; its slots are a range of their own.
        seed: What it is drawn from.
    """

    def __init__(self, producer: int, seed: str) -> None:
        self._producer = producer
        self._draw = random.Random(seed)
        self._count = 0

    def next(self) -> Call:
        """Return the next call."""
        self._count += 1
        slot = self._producer * 1_000_000 + self._count
        draw = self._draw
        secret = f"{CANARY}-{slot}" if draw.random() < 0.1 else ""
        kind = draw.choices(
            ("quick", "aquick", "kept", "slow", "aslow", "flaky", "hopeless", "unique", "later"),
            (34, 34, 8, 3, 3, 4, 1, 3, 10),
        )[0]
        options: dict[str, Any] = {"task_id": f"p{self._producer}-{self._count}"}
        facts: dict[str, Any] = {"slot": slot}
        signature: Signature[Any]
        match kind:
            case "quick" | "later":
                signature = program.quick.s(slot, secret)
                if kind == "later":
                    options["run_after"] = draw.choice((1, 2, 4))
            case "aquick":
                signature = program.aquick.s(slot, secret)
            case "kept":
                signature = program.kept.s(slot, secret)
                facts["kept"] = True
            case "slow":
                signature = program.slow.s(slot, round(draw.uniform(0.3, 2.0), 2), secret)
            case "aslow":
                signature = program.aslow.s(slot, round(draw.uniform(0.3, 2.0), 2), secret)
            case "flaky":
                failures = draw.choice((1, 1, 2))
                signature = program.flaky.s(slot, failures, secret)
                facts["failures"] = failures
            case "hopeless":
                signature = program.hopeless.s(slot, secret)
                facts |= {"slot": None, "failures": 2, "hopeless": True}
            case _:
                number = draw.randrange(UNIQUE_KEYS)
                key = f"key-{number}"
                signature = program.unique.s(key, 0.2 + 0.1 * number)
                options["headers"] = {"soak-key": key}
                facts |= {"slot": None, "key": key}
        if draw.random() < 0.3 and kind != "unique":
            options["queue"] = "bulk"
        signature = signature.using(**options)
        facts |= {"name": signature.task.name, "queue": signature.task.options.queue}
        return Call(options["task_id"], signature, facts)
