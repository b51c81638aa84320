"""The states of a task, as they are spelled in the field `state` of the task's hash."""

from enum import StrEnum


class TaskState(StrEnum):
    """State of a task. The value is the word in Redis, and the position plus 1 is the number in Go."""

    ACTIVE = "active"
    PENDING = "pending"
    SCHEDULED = "scheduled"
    RETRY = "retry"
    ARCHIVED = "archived"
    COMPLETED = "completed"
    AGGREGATING = "aggregating"
