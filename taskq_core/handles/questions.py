"""Read the open questions of tasks, and answer them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from taskq_core.broker.operations import steps as operations
from taskq_core.broker.operations.operation import Confirmation
from taskq_core.broker.operations.steps import ListedQuestion, Record
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.codec import Schema, check_answer, decode_signal, encode_result
from taskq_core.errors import ConfigurationError, TaskStateError
from taskq_core.handles.durable import check_sent
from taskq_core.telemetry import current_traceparent
from taskq_core.wire import QueueKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question that a task has asked with `context.receive(name, type, ask={...})`, and that nobody has answered.

    Attributes:
        queue: Queue of the task.
        task_id: Id of the task.
        task: Name of the task.
        name: Name of the question.
        number: Number of the question among those of the task, from 1. `answer` takes it.
        asked: What is asked.
        answer_schema: JSON schema of the answer. Empty: every JSON value is allowed.
        since: When the task asked.
        until: When the task stops waiting, None without a limit.
        key: Name of the question in the record of the task, such as "review#1". `forget_step` takes it.
        generation: Distinguishes the task from later tasks with the same id. `answer_task` takes it.
    """

    queue: str
    task_id: str
    task: str
    name: str
    number: int
    asked: Mapping[str, Any] = field(repr=False)
    answer_schema: Schema = field(repr=False)
    since: datetime
    until: datetime | None
    key: str
    generation: str

    @property
    def data(self) -> bytes:
        """What is asked, as JSON."""
        return encode_result(self.asked)


class _Asked(msgspec.Struct):
    task: str
    ask: dict[str, Any]
    schema: Schema


def read_question(queue: QueueKeys, stored: ListedQuestion) -> Question:
    """Return a question from its fields in the record of its task."""
    number, since_ms, _, data = stored.asked.split(b" ", 3)
    asked = msgspec.json.decode(data, type=_Asked)
    end = stored.ends.partition(b" ")[0]
    return Question(
        queue=queue.name,
        task_id=stored.task_id,
        task=asked.task,
        name=stored.name.rpartition("#")[0],
        number=int(number),
        asked=asked.ask,
        answer_schema=asked.schema,
        since=utc_datetime(int(since_ms) / 1000),
        until=None if end == b"-" else utc_datetime(int(end) / 1000),
        key=stored.name,
        generation=stored.mark,
    )


def open_questions(queue: QueueKeys, task_id: str, record: Record) -> list[Question]:
    """Return the questions in the record of a task that can be answered, the oldest first."""
    if "cancel" in record:  # nothing ends a wait any more
        return []
    names = [each[2:] for each in record if each.startswith("q:") and f"v:{each[2:]}" not in record]
    mark = record.get("of", b"").decode()
    return sorted(
        (
            read_question(
                queue, ListedQuestion(task_id, name, record[f"q:{name}"], record.get(f"u:v:{name}", b"-"), mark)
            )
            for name in names
        ),
        key=lambda each: each.number,
    )


def question(queue: QueueKeys, task_id: str) -> RequestPlan[Question | None]:
    """Return the open question of a task, None without one. See `TaskHandle.question`."""
    record = yield from ask(operations.read_steps(queue, task_id))
    found = open_questions(queue, task_id, record)
    return found[0] if found else None


def answer(
    queue: QueueKeys,
    task_id: str,
    number: int,
    value: object,
    *,
    by: str,
    declared: Mapping[str, Any],
    generation: str,
    confirm: Confirmation | None = None,
) -> RequestPlan[None]:
    """Answer the question of a task that has this number. See `TaskHandle.answer`."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"number must be the number of a question, from 1, got {number!r:.100}")
    if not isinstance(by, str):
        raise ConfigurationError(f"by must be text, got {type(by).__name__}")
    record = yield from ask(operations.read_steps(queue, task_id))
    found = {each.number: each for each in open_questions(queue, task_id, record)}.get(number)
    if found is None:
        data, name, key = b"null", str(number), ""
    else:
        name, key = found.name, found.key
        data = check_answer(name, value, found.answer_schema)
        if name in declared:
            decode_signal(name, data, declared[name], way_out="nothing was sent")
    traceparent = current_traceparent()
    request = operations.signal(
        queue,
        task_id,
        key,
        operations.encode_answer(by, data, traceparent),
        question=number,
        generation=generation or record.get("of", b"").decode(),
        traceparent=traceparent,
        confirm=confirm,
    )
    outcome = yield from ask(request)
    if outcome == "answered":
        problem = f"question {number} of the task is not open: it was answered, or the task no longer waits for it"
        raise TaskStateError(queue.name, task_id, outcome, problem)
    check_sent(queue, task_id, outcome)
