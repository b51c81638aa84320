"""Check whether a task has expired, because it was not started by its latest start time. Make the error for this."""

from taskq_core.clock import utc_datetime
from taskq_core.errors import TaskExpiredError
from taskq_core.wire import EXPIRES, TaskMessage, read_expiry

EXPIRED_TEXT = "the task expired: it was not started"
"""Beginning of the error text of an expired task."""


def check_expiry(message: TaskMessage, now_s: float, queue: str) -> None:
    """Check that a task has not expired.

    Raises:
        TaskExpiredError: The latest start of the task was before `now_s`, a Unix second by Redis's clock.
    """
    if EXPIRES not in message.headers:
        return
    expiry = read_expiry(message.headers)
    if expiry is None or expiry.is_relative or now_s <= expiry.value_s:
        return
    expired_at = utc_datetime(expiry.value_s)
    raise TaskExpiredError(queue, message.id, f"{EXPIRED_TEXT} by {expired_at.isoformat()}", expired_at)


def is_discarded_when_expired(message: TaskMessage) -> bool:
    """Return whether a task is discarded instead of archived when it expires."""
    expiry = read_expiry(message.headers)
    return expiry is not None and expiry.is_discarded


def expired_error(message: TaskMessage, queue: str) -> TaskExpiredError | None:
    """Return the error of an archived task that expired; None if it was archived for another reason."""
    if not message.error_msg.startswith(EXPIRED_TEXT):
        return None
    expiry = read_expiry(message.headers)
    expired_at = None if expiry is None or expiry.is_relative else utc_datetime(expiry.value_s)
    return TaskExpiredError(queue, message.id, message.error_msg, expired_at)
