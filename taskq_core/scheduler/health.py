"""Judge whether a scheduler works, for `/readyz`.

It means work: a script of the lease's has run on Redis lately, whether this scheduler leads or waits to, and if it
leads, each queue's turns come to their end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STALE_S = 30.0
"""Age of the last answer about the lease, and of a queue's last turn, beyond which the scheduler is not ready."""


@dataclass(frozen=True, slots=True)
class TurnState:
    """What a queue's ticker says of itself.

    Attributes:
        age_s: Seconds since a turn came to its end, or since the first one began.
        problem: What the last turn failed with, "" for nothing.
    """

    age_s: float
    problem: str


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """What a scheduler says of itself.

    Attributes:
        status: `new`, `active` or `closed`.
        leads: Whether it is the one that enqueues.
        entries: Periodic tasks it knows.
        answer_age_s: Seconds since Redis last answered about the lease, None before the first time.
        queues: The queues whose turns it makes now.
    """

    status: str
    leads: bool
    entries: int
    answer_age_s: float | None
    queues: dict[str, TurnState]


class SchedulerHealth:
    """Judges the health of a scheduler.

    Args:
        state: Asks the scheduler for what it says of itself.
    """

    def __init__(self, state: Callable[[], SchedulerState]) -> None:
        self._state = state

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the scheduler is ready, and the body that says so."""
        state = self._state()
        problems = {name: problem for name, turn in state.queues.items() if (problem := _problem(turn))}
        status, reason = _judge(state, problems)
        age_s = state.answer_age_s
        body: dict[str, Any] = {
            "status": status,
            "leads": state.leads,
            "entries": state.entries,
            "last_answer_age_s": None if age_s is None else round(max(0.0, age_s), 3),
            "queues": {
                name: {"ok": False, "problem": problems[name]} if name in problems else {"ok": True}
                for name in state.queues
            },
        }
        if reason:
            body["reason"] = reason
        return status == "ready", body


def _problem(turn: TurnState) -> str:
    return turn.problem or (f"its last turn ended {turn.age_s:.0f} s ago" if turn.age_s > STALE_S else "")


def _judge(state: SchedulerState, problems: dict[str, str]) -> tuple[str, str]:
    """Return the status in a word, and why the scheduler is not ready ("" if it is)."""
    if state.status == "closed":
        return "draining", "nothing more is enqueued"
    if state.status == "new":
        return "starting", "nothing is enqueued yet"
    if state.entries:  # without any there is no lease to ask for
        if state.answer_age_s is None:
            return "starting", "Redis was not asked for the lease yet"
        if state.answer_age_s > STALE_S:
            return "unready", f"Redis answered {state.answer_age_s:.0f} s ago last"
    for name, problem in problems.items():
        return "unready", f"queue {name!r}: {problem}"
    return "ready", ""
