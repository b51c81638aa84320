"""The record of a task's steps: read and write it, send signals, and read what the task emits. See `_steps.lua`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from msgspec import Raw, Struct
from msgspec.json import decode, encode

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import NOW, Argument, Confirmation, Operation, run_owner, script
from taskq_core.wire import QueueKeys

T = TypeVar("T")

SIGNALS_MAX = 1_000
"""Maximum number of signals of a task."""
SIGNALS_BYTES = 1 << 20
"""Maximum bytes of all signals of a task."""
QUESTIONS_BYTES = 8 << 20
"""Total bytes of questions after which `list_questions` lists no further ones."""
PAGE = 200
"""Maximum number of emitted values that one request reads."""
LOST = "the stored steps of this task are lost: Redis keeps them for 90 days after its last run; enqueue a new task"
"""Error text for a task whose record of steps is lost."""

POSITION = "p:iterate"
"""Field of the record: the position of the task's loops."""

Record = dict[str, bytes]
"""The fields of the record of a task's steps, see `_steps.lua`."""


class Refusal(Struct):
    """Answer of a script that refused a write of a run.

    Attributes:
        is_lost: True if the record of the steps is lost. False if the worker no longer owns the run.
    """

    is_lost: bool


class LoadedSteps(Struct):
    """Answer of `load_steps`: Redis's time in Unix ms, and the record."""

    now_ms: int
    record: Record

    @property
    def attempt(self) -> int:
        """Number of the attempt, from 1. A run after a wait belongs to the attempt before it."""
        return int(self.record["try"].partition(b" ")[0])

    @property
    def sender(self) -> str:
        """`traceparent` of the request whose signal or answer has ended the wait before this run, "" without one."""
        wait = self.record.get("by", b"").decode()
        kind, _, signal = wait.partition(":")
        if kind == "v" and (answer := read_answer(self.record.get(wait, b""))):
            return answer.traceparent
        return self.record.get(f"t:{signal}", b"").decode() if kind == "r" else ""


class StoredAnswer(Struct, array_like=True):
    """The answer to a question, as stored: who answered, the value as JSON, and the `traceparent` of the request."""

    by: str
    value: Raw
    traceparent: str = ""


def read_answer(stored: bytes) -> StoredAnswer | None:
    """Return the answer in a field v:<name>#<k>, None if the task stopped waiting for it."""
    data = stored.partition(b" ")[2]
    return decode(data, type=StoredAnswer) if data else None


def _keys(queue: QueueKeys, task_id: str) -> tuple[str, str, str]:
    return queue.task(task_id), queue.lease, queue.steps_of(task_id)


def _fenced(
    name: str, keys: tuple[str, ...], args: Sequence[Argument], read: Callable[[Any], T]
) -> Operation[T | Refusal]:
    """Return an operation of a run, whose script answers 0 or 1 to refuse it."""
    return script(name, keys, args, lambda reply: Refusal(is_lost=reply == 1) if reply in (0, 1) else read(reply))


def load_steps(
    queue: QueueKeys, task_id: str, *, owner: str, run: int, has_links: bool = False
) -> Operation[LoadedSteps | Refusal]:
    """Read the record of the steps of a running task. Create it if the task has none.

    With `has_links`, links that contain the fence of this run answer the task also after the run.
    """
    keys = (*_keys(queue, task_id), queue.stream_of(task_id), queue.absent)
    args = (NOW, run_owner(owner, run), task_id, int(has_links))
    return _fenced("load_steps", keys, args, lambda reply: LoadedSteps(int(reply[0]), replies.shown_fields(reply[1])))


class Output(Struct):
    """Values that a run emitted, for one request.

    Attributes:
        values: The values as JSON, each with the name of its step.
        call: Number of the request in the run. A request whose number is not above those of earlier requests of the run
            appends nothing.
        attempt: Number of the attempt, from 1.
        kept: Approximate number of values that the stream keeps. Older ones are deleted.
    """

    values: Sequence[tuple[str, bytes]]
    call: int
    attempt: int
    kept: int = 10_000

    def args(self, queue: QueueKeys) -> list[Argument]:
        """Return the arguments of a script, see `_emit.lua`."""
        args: list[Argument] = [self.call, self.kept, queue.done, self.attempt]
        for each in self.values:
            args += each
        return args


def store_step(
    queue: QueueKeys,
    task_id: str,
    field: str,
    value: bytes,
    *,
    owner: str,
    run: int,
    missed: str = "",
    output: Output | None = None,
) -> Operation[bytes | Refusal]:
    """Store the result of a step. The answer is the stored value: the earlier one if the step already has a result.

    With the field `POSITION`, replace the position of the loops, unless a later request of the run has stored another
    one. This needs an `output`, also without values. The answer is empty.

    The value of a question gets its number as a prefix, and the question is listed.

    With `missed`, record that the task has stopped waiting for the signal with this name. With `output`, append values
    to the stream of the task before the result is stored.
    """
    args: list[Argument] = [run_owner(owner, run), task_id, field, value, missed]
    if output is not None:
        args += output.args(queue)
    keys = (*_keys(queue, task_id), queue.absent, queue.stream_of(task_id), queue.questions)
    return _fenced("store_step", keys, args, lambda reply: reply)


def signal(
    queue: QueueKeys,
    task_id: str,
    name: str,
    value: bytes,
    *,
    signal_id: str | None = None,
    number: int = 0,
    question: int = 0,
    generation: str = "",
    traceparent: str = "",
    confirm: Confirmation | None = None,
) -> Operation[str]:
    """Send a value to a task, and make the task pending if it waits for this signal.

    A repeat with the same `signal_id` changes nothing.

    With `number`, the value answers only the wait with this number (from 1) of the same name. The task may begin this
    wait later.

    With `question`, the value is an answer, encoded by `encode_answer`. It answers only the question with this number,
    and `name` is "<name>#<k>".

    With `generation`, only the task that has it gets the value. The run that the value resumes links to `traceparent`.
    With `confirm`, the runner waits until replicas or disks have the value.

    The answer is "ok", "missing" for an unknown task, "full" at the maximum of signals, "lost" if the record of its
    steps is lost, "answered" if the wait or the question with this number has its value or is over, "asks" if the task
    asks a question with the name of the signal, or the state of a task that has ended.
    """
    task, _, record = _keys(queue, task_id)
    keys = (task, record, queue.stream_of(task_id), queue.pending, queue.scheduled, queue.wake, queue.questions)
    args: list[Argument] = [NOW, task_id, name, value, signal_id or uuid4().hex, SIGNALS_MAX, SIGNALS_BYTES]
    args += (queue.prefix, queue.own_prefix, queue.done, generation, traceparent, "", number, question)
    marker = "" if confirm is None else queue.unconfirmed("")
    return script("signal", keys, args, replies.text, deadline_at=len(args) - 3, confirm=confirm, marker=marker)


def encode_answer(by: str, value: bytes, traceparent: str) -> bytes:
    """Return the value for `signal` of an answer by somebody, given as JSON."""
    return encode(StoredAnswer(by, Raw(value), traceparent))


class ListedQuestion(Struct):
    """An open question, as stored: the id of its task, "<name>#<k>", and the fields q:, u: and `of` of the record."""

    task_id: str
    name: str
    asked: bytes
    ends: bytes
    mark: str


def list_questions(queue: QueueKeys, *, limit: int) -> Operation[list[ListedQuestion]]:
    """List the open questions of a queue, the oldest first, at most `limit`."""

    def read(reply: Any) -> list[ListedQuestion]:
        return [
            ListedQuestion(replies.text(task_id), replies.shown(name), asked, ends, replies.text(mark))
            for task_id, name, asked, ends, mark in reply
        ]

    args = (queue.task(""), queue.steps_of(""), limit, QUESTIONS_BYTES)
    return script("list_questions", (queue.questions,), args, read)


def emit(queue: QueueKeys, task_id: str, output: Output, *, owner: str, run: int) -> Operation[Refusal | None]:
    """Append values to the stream of a running task."""
    args = (NOW, run_owner(owner, run), task_id, *output.args(queue))
    return _fenced("emit", (*_keys(queue, task_id), queue.stream_of(task_id), queue.absent), args, lambda reply: None)


def read_steps(queue: QueueKeys, task_id: str) -> Operation[Record]:
    """Read the record of the steps of a task. Empty without one."""
    keys = (queue.task(task_id), queue.steps_of(task_id))
    return script("read_steps", keys, (), lambda reply: replies.shown_fields(reply) if reply else {})


class EmittedValue(Struct):
    """A value that a task emitted, as stored.

    Attributes:
        id: Id in the stream: "<Unix ms>-<number of the value>".
        gap: Number of values that were deleted directly before this one, and that the reader has not received.
        attempt: Number of the attempt, from 1.
        step: Name of the step that emitted it, "" outside of steps.
        data: The value as JSON.
    """

    id: str
    gap: int
    attempt: int
    step: str
    data: bytes


class StreamPage(Struct):
    """Answer of `read_stream`: the state of the task ("" if it does not exist), and the next values."""

    state: str
    values: list[EmittedValue]


def read_stream(queue: QueueKeys, task_id: str, *, after: str = "") -> Operation[StreamPage]:
    """Read the values that a task emitted after the value with the id `after`, oldest first, at most `PAGE`."""

    def read(reply: Any) -> StreamPage:
        values = []
        last = _number(after)
        for stream_id, fields in reply[1]:
            found, value_id = dict(replies.pairs(fields)), replies.text(stream_id)
            gap, last = max(0, _number(value_id) - last - 1), _number(value_id)
            values.append(EmittedValue(value_id, gap, int(found[b"a"]), replies.shown(found[b"s"]), found[b"v"]))
        return StreamPage(replies.text(reply[0]), values)

    keys = (queue.task(task_id), queue.steps_of(task_id), queue.stream_of(task_id))
    return script("read_stream", keys, (after or "-", PAGE), read)


def _number(value_id: str) -> int:
    return int(value_id.partition("-")[2] or 0)


def cancel_steps(queue: QueueKeys, task_id: str, *, wish: str, generation: str = "") -> Operation[bool]:
    """Request that a task whose steps have begun is cancelled in its next run, and start this run.

    `wish` is "archive" or "discard". The answer is False if the task runs or has ended, or has not begun a step.
    """
    task, _, record = _keys(queue, task_id)
    keys = (task, record, queue.pending, queue.scheduled, queue.retry, queue.wake)
    return script("cancel_steps", keys, (NOW, task_id, wish, queue.prefix, generation), lambda reply: reply == 1)


def forget_step(queue: QueueKeys, task_id: str, name: str, *, generation: str = "") -> Operation[bool | str]:
    """Delete a field of the record, so that the next run of the task repeats the step.

    The answer is True if the field existed, False if not, "missing" if the task does not exist, or "active" if it runs.
    """

    def read(reply: Any) -> bool | str:
        return reply == 1 if isinstance(reply, int) else replies.text(reply)

    keys = (queue.task(task_id), queue.steps_of(task_id), queue.pending, queue.scheduled, queue.wake, queue.questions)
    args = (NOW, task_id, name, queue.prefix, queue.own_prefix, generation)
    return script("forget_step", keys, args, read)
