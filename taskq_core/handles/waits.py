"""Read the wait of a task from the record of its steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

StepKind = Literal["step", "sleep", "signal", "question", "sub-tasks", "position"]
"""Kind of an entry in the record of a task's steps."""
_KINDS: dict[str, StepKind] = {
    "z": "sleep",
    "r": "signal",
    "o": "signal",
    "v": "question",
    "c": "sub-tasks",
    "y": "step",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWait:
    """The sleep, the signal, the answer, the sub-tasks or the next attempt of a step that a scheduled task waits for.

    Attributes:
        kind: sleep, signal, question, sub-tasks, or step for the next attempt of a step.
        name: Name of the sleep, the signal, the question, the call or the step. If the first of several signals ends
            the wait, their names, separated by ` | `.
        number: For a signal, the number of the value, from 1, among all values of this signal name. For a question, its
            number among those with this name. For a step, the number of its failures so far. 0 for other waits.
        until: Latest end of the wait, None if the wait has no time limit.
        signals: The number of the value for each signal that ends the wait, by the name of the signal.
    """

    kind: StepKind
    name: str
    number: int
    until: datetime | None
    signals: Mapping[str, int] = field(default_factory=dict)


def read_wait(stored: str, starts_at: datetime | None) -> TaskWait | None:
    """Return the stored wait of a task, None if it does not wait.

    Args:
        stored: "<end, Unix ms, or '-'> <wait>".
        starts_at: When the task is started. This start ends every wait that has a time limit.
    """
    end, _, wait = stored.partition(" ")
    letter, _, rest = wait.partition(":")
    if letter not in _KINDS:
        return None
    name, _, number = rest.rpartition("#") if letter in "rvy" else (rest, "", "")
    signals = {}
    if letter == "r":
        signals = {name: int(number or 0)}
    elif letter == "o":
        signals = read_signals(rest)
        name = " | ".join(signals)
    until = None if end == "-" else starts_at
    return TaskWait(kind=_KINDS[letter], name=name, number=int(number or 0), until=until, signals=signals)


def read_signals(several: str) -> dict[str, int]:
    """Return the numbers of several signals by name, from the name of their wait in the record, see `_steps.lua`."""
    numbered = (each.rpartition("#") for each in several.split(" | ")[:-1])
    return {name: int(number) for name, _, number in numbered}
