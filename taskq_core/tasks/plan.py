"""The data that all enqueues of one task under one key prefix share. It is computed once."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, cast

from taskq_core.broker.operations.operation import Confirmation
from taskq_core.handles.handle import TaskHandle
from taskq_core.tasks.limits import Limits
from taskq_core.tasks.options import TaskOptions
from taskq_core.wire import (
    DEAD_LETTER,
    EXPIRES,
    PRIORITY,
    Keys,
    MessageTemplate,
    QueueKeys,
    TaskState,
    encode_headers,
    expiry_mark,
    priority_mark,
)


class Plan:
    """The data that all enqueues of one task under one key prefix share.

    Attributes:
        headers: The task's own headers, and headers for options that Asynq does not have.
        encoded_headers: `headers` in the format of the task message.
        handle: Makes the handle of one task from a `HandleSource` and the id of the task.
        marks: The options that Asynq does not have, such as a priority, in the format of the Lua scripts.
    """

    def __init__(
        self, name: str, options: TaskOptions, keys: Keys, limits: Limits | None = None, result_type: Any = Any
    ) -> None:
        self.keys = keys
        self.limits = limits
        self.options = options
        self.queue: QueueKeys = keys.queue(options.queue)
        self.template = MessageTemplate(
            name,
            options.queue,
            retry=options.max_retry,
            timeout=options.timeout_s,
            deadline=options.stored_deadline_s,
            retention=options.retention_s,
            group_key=options.aggregate or "",
        )
        self.marks, own_headers = _controls(options)
        self.headers: Mapping[str, str] = {**options.headers, **own_headers}
        self.encoded_headers = encode_headers(self.headers)
        self.unique = options.unique
        self.unique_rule = "" if options.unique is None else options.unique.rule
        self.unique_s = options.unique_s
        self.group = options.aggregate or ""
        self.task_id = options.task_id
        self.confirm = confirmation_of(options)
        self.has_rules = bool(self.marks or self.unique_rule or self.confirm)
        """Whether each new task also needs fields that most tasks leave empty: marks, unique rule or confirmation."""
        self.start_at_s: int | None = None
        self.start_in_ms: int | None = None
        if isinstance(options.run_after, datetime):
            self.start_at_s = math.ceil(options.run_after.timestamp())
        elif options.run_after:
            self.start_in_ms = math.ceil(cast("float", options.run_after) * 1000)
        first_state = TaskState.AGGREGATING if self.group else TaskState.PENDING
        if self.start_at_s is not None or self.start_in_ms is not None:
            first_state = TaskState.SCHEDULED
        self.handle: Callable[..., TaskHandle[Any]] = partial(
            TaskHandle,
            queue=options.queue,
            name=name,
            is_kept=options.retention_s > 0,
            result_type=result_type,
            first_state=first_state,
            signals=options.signals,
            confirm=self.confirm,
        )


def confirmation_of(options: TaskOptions) -> Confirmation | None:
    """Return what must confirm enqueues of a task and requests to it, by its options."""
    return Confirmation(options.replicated, options.fsynced) if options.replicated or options.fsynced else None


def _controls(options: TaskOptions) -> tuple[str, dict[str, str]]:
    """Return the options that Asynq does not have: once as marks for the Lua scripts, once as message headers."""
    marks, headers = "", {}
    if (expiry := options.expiry) is not None:
        headers[EXPIRES] = str(expiry)
        marks += expiry_mark(expiry, timeout_s=0 if options.deadline_s else options.timeout_s)
    bands = options.bands
    if any(bands):
        headers[PRIORITY] = f"{bands[0]}:{bands[1]}"
        marks += priority_mark(*bands)
    if (address := options.dead_letter_address) is not None:
        headers[DEAD_LETTER] = json.dumps(address)
    return marks, headers
