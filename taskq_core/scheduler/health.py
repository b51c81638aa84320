"""Decide whether a scheduler is ready, for `/readyz`.

Ready means that Redis answered recently about the leader's lease, whether this scheduler leads or waits. If it leads,
the ticker of every queue must also have completed a turn (one check for due firings) recently.
"""

from typing import Any

from msgspec import Struct

from taskq_core.broker.waiting import WAITING

STALE_S = 30.0
"""Maximum age of the last answer about the lease, and of a queue's last turn, for a ready scheduler."""


class TurnState(Struct, frozen=True):
    """State of a queue's ticker.

    Attributes:
        age_s: Seconds since the end of the last turn, or since the ticker was created.
        problem: Error of the last turn, "" if it succeeded.
    """

    age_s: float
    problem: str


class SchedulerState(Struct, frozen=True):
    """State of a scheduler.

    Attributes:
        status: `new`, `active` or `closed`.
        leads: Whether it holds the lease and enqueues.
        entries: Number of periodic tasks.
        answer_age_s: Seconds since Redis last answered about the lease, None before the first answer.
        queues: State of the tickers by queue; empty while another scheduler leads.
        waiting: Why the starting scheduler waits for Redis, "" if it does not wait.
    """

    status: str
    leads: bool
    entries: int
    answer_age_s: float | None
    queues: dict[str, TurnState]
    waiting: str = ""

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the scheduler is ready, and the body of the response."""
        problems = {name: problem for name, turn in self.queues.items() if (problem := _problem(turn))}
        status, reason = _status(self, problems)
        age_s = self.answer_age_s
        body: dict[str, Any] = {
            "status": status,
            "leads": self.leads,
            "entries": self.entries,
            "last_answer_age_s": None if age_s is None else round(max(0.0, age_s), 3),
            "queues": {
                name: {"ok": False, "problem": problems[name]} if name in problems else {"ok": True}
                for name in self.queues
            },
        }
        if reason:
            body["reason"] = reason
        return status == "ready", body


def _problem(turn: TurnState) -> str:
    return turn.problem or (f"its last turn ended {turn.age_s:.0f} s ago" if turn.age_s > STALE_S else "")


def _status(state: SchedulerState, problems: dict[str, str]) -> tuple[str, str]:
    """Return the status for the response, and why the scheduler is not ready ("" if it is ready)."""
    if state.status == "closed":
        return "draining", "no more periodic tasks are enqueued"
    if state.waiting:
        return WAITING, state.waiting
    if state.status == "new":
        return "starting", "no periodic task is enqueued yet"
    if state.entries:  # a scheduler without entries does not request the lease
        if state.answer_age_s is None:
            return "starting", "the leader lease was not requested yet"
        if state.answer_age_s > STALE_S:
            return "unready", f"Redis last answered {state.answer_age_s:.0f} s ago"
    for name, problem in problems.items():
        return "unready", f"queue {name!r}: {problem}"
    return "ready", ""
