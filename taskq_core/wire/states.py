"""The states of a task, as the field `state` of its hash spells them."""

from enum import StrEnum


class TaskState(StrEnum):
    """Where a task stands. The value is the word in Redis; `number` is Go's own count, used in its programs only."""

    ACTIVE = "active"
    PENDING = "pending"
    SCHEDULED = "scheduled"
    RETRY = "retry"
    ARCHIVED = "archived"
    COMPLETED = "completed"
    AGGREGATING = "aggregating"

    @property
    def number(self) -> int:
        """Go's number of the state, 1 to 7."""
        return _NUMBERS[self]

    @classmethod
    def from_number(cls, number: int) -> "TaskState":
        """Return the state with Go's number.

        Raises:
            ValueError: No state has this number.
        """
        for state, known in _NUMBERS.items():
            if known == number:
                return state
        raise ValueError(f"no task state has the number {number}")


# Go counts the states in the order in which they are declared above.
_NUMBERS: dict[TaskState, int] = {state: number for number, state in enumerate(TaskState, start=1)}
