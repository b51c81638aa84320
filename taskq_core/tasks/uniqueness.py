"""The option `unique`: which arguments are compared, how long the lock lasts, and what happens to a second, equal task.

The unique lock is a key in Redis. A script takes or releases the lock in the same step in which it changes the task.
The key has the same name as in Asynq, with the MD5 of the arguments, so Go and Python programs share the lock if all
arguments are compared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from taskq_core.errors import ConfigurationError
from taskq_core.settings import Duration, member, seconds


class UniqueStates(StrEnum):
    """The states of a task in which a second, equal task is refused."""

    UNTIL_STARTED = "until_started"
    """While the task waits to run: pending, scheduled, in its group, or between two attempts. A second task may be
    enqueued while the first one runs."""
    UNTIL_FINISHED = "until_finished"
    """A second task is refused while the first one waits or runs, until it succeeds, is discarded or is archived."""
    WHILE_EXISTS = "while_exists"
    """A second task is refused as long as the first one exists in Redis, also while it is completed or archived."""


class OnConflict(StrEnum):
    """Effect of an enqueue while another task holds the lock."""

    REJECT = "reject"
    """The enqueue raises `DuplicateTaskError`."""
    REPLACE = "replace"
    """The waiting task gets the arguments and options of this call, and also its start time if `run_after` is set."""
    RESCHEDULE = "reschedule"
    """The waiting task keeps its arguments and gets the start time of the new call: `run_after`, or now."""
    RETURN_EXISTING = "return_existing"
    """The enqueue changes nothing and returns the handle of the existing task."""


NAMES_MAX = 1000
"""Maximum total length of the names in `Unique.args`, in characters."""
_UNTIL = {UniqueStates.UNTIL_STARTED: "s", UniqueStates.UNTIL_FINISHED: "f", UniqueStates.WHILE_EXISTS: "w"}
_CONFLICT = {
    OnConflict.REJECT: "d",
    OnConflict.REPLACE: "r",
    OnConflict.RESCHEDULE: "m",
    OnConflict.RETURN_EXISTING: "e",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """Prevents equal tasks in one queue: tasks with the same name and the same values of `args`.

    The lock exists while the task is in one of `states`. A crash leaves neither a lock without its task nor a task
    without its lock. Added in 0.1.

    Attributes:
        args: Names of the arguments to compare. None: all arguments. `()`: no arguments, so at most one task with this
            name exists.
        period: Maximum time that the lock is held, from the enqueue or from a later start time; at least one second.
            The lock is also held while the task runs. None: the lock is held as long as the task is in one of `states`.
        states: `until_finished`, `until_started` or `while_exists`.
        on_conflict: Effect of a second enqueue: `reject`, `replace`, `reschedule` or `return_existing`.

    Raises:
        ConfigurationError: A value is not valid.
    """

    args: Sequence[str] | None = None
    period: Duration | None = None
    states: UniqueStates | str = UniqueStates.UNTIL_FINISHED
    on_conflict: OnConflict | str = OnConflict.REJECT

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        if self.args is not None:
            set_(self, "args", _names(self.args))
        if self.period is not None:
            period_s = seconds("unique period", self.period, allow_zero=False)
            if period_s < 1:
                raise ConfigurationError(f"unique period must be at least one second, got {self.period!r}")
            set_(self, "period", period_s)
        set_(self, "states", member(UniqueStates, "unique states", self.states))
        set_(self, "on_conflict", member(OnConflict, "unique on_conflict", self.on_conflict))

    @property
    def period_s(self) -> int:
        """The period in whole seconds, 0 if there is none."""
        return 0 if self.period is None else int(seconds("unique period", self.period))

    @property
    def rule(self) -> str:
        """The states, the effect of a conflict and the compared arguments, in the format of the Lua scripts."""
        names = "" if self.args is None else ":" + ",".join(self.args)
        return _UNTIL[UniqueStates(self.states)] + _CONFLICT[OnConflict(self.on_conflict)] + names


def _names(given: object) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigurationError(f"unique args must be a list of parameter names, got {given!r}")
    names = tuple(given)
    for name in names:
        if not isinstance(name, str) or not name or "," in name or not name.isprintable():
            raise ConfigurationError(f"unique args must be names of parameters, got {name!r}")
    if len(",".join(names)) > NAMES_MAX:
        raise ConfigurationError(f"unique args must be at most {NAMES_MAX} characters together")
    return tuple(dict.fromkeys(names))
