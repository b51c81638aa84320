"""What is read of a workflow, and how it reads: requests that either kind of client sends, and their answers.

Each of these is a generator: it yields operations, is sent their answers, and returns what was asked for. So the
blocking and the asyncio client share them.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from taskq_core.broker.operations.services import cancel
from taskq_core.broker.operations.views import look
from taskq_core.broker.operations.workflows import (
    FIELDS_MAX,
    cancel_workflow,
    look_at_workflow,
    read_results,
    read_step,
    retry_steps,
    revoke_steps,
)
from taskq_core.broker.plans import RequestPlan
from taskq_core.clock import utc_datetime
from taskq_core.codec import decode_result
from taskq_core.codec.oversized import OversizedResult, read_oversized
from taskq_core.errors import (
    ResultTooLargeError,
    WireFormatError,
    WorkflowCancelledError,
    WorkflowDamagedError,
    WorkflowFailedError,
    WorkflowNotFoundError,
)
from taskq_core.handles.workflow_records import StepInfo, StepState, WorkflowGraph, WorkflowInfo, WorkflowState, counted
from taskq_core.wire import Keys, QueueKeys, decode_message
from taskq_core.workflow.graph import FAILED, STOP

NOT_YET = object()
"""What `ask_result` returns of a workflow that has not ended."""

_STATES = {
    b"w": StepState.WAITING,
    b"h": StepState.WAITING,
    b"p": StepState.STARTED,
    b"d": StepState.SUCCEEDED,
    b"f": StepState.FAILED,
    b"x": StepState.SKIPPED,
    b"c": StepState.CANCELLED,
}
_WHEN = {STOP: "success", FAILED: "failure"}


class Spec(msgspec.Struct):
    """What a workflow was made of, as `sending` writes it.

    Attributes:
        nodes: Of each its name, task, queue, parents with when it runs after them, and whether it is a group and a
            callback.
        exits: The nodes whose results are the workflow's.
    """

    nodes: list[tuple[str, str, str, list[tuple[int, str]], bool, bool]]
    exits: Any


class Stored:
    """Reads fields of a workflow. What is no such field raises `WorkflowDamagedError`, which names it."""

    def __init__(self, queue: QueueKeys, workflow_id: str) -> None:
        self._queue = queue.name
        self._id = workflow_id

    def damaged(self, what: str) -> WorkflowDamagedError:
        """Return the error that says what is damaged."""
        return WorkflowDamagedError(self._queue, self._id, f"what Redis keeps of it is damaged: {what}")

    def state(self, value: bytes | None) -> WorkflowState:
        """Return how it stands."""
        try:
            return WorkflowState((value or b"").decode())
        except ValueError:
            raise self.damaged(f"there is no state {value!r:.100}") from None

    def number(self, field: str, value: bytes | None) -> int:
        """Return a number, 0 if it is missing."""
        try:
            return int(value or 0)
        except ValueError:
            raise self.damaged(f"field {field!r} must be a number, is {value!r:.100}") from None

    def time(self, field: str, value: bytes | None) -> datetime:
        """Return a time that is kept in ms."""
        try:
            return utc_datetime(int(value or b"") / 1000)
        except (ValueError, OverflowError, OSError):
            raise self.damaged(f"field {field!r} must be a time in Unix ms, is {value!r:.100}") from None

    def spec(self, value: bytes | None) -> Spec:
        """Return what it was made of."""
        try:
            spec = msgspec.json.decode(value or b"", type=Spec)
        except msgspec.DecodeError as error:
            raise self.damaged(f"field 'spec': {error}") from None
        for number, node in enumerate(spec.nodes):
            if not all(0 <= parent < number for parent, _ in node[3]):
                raise self.damaged(f"field 'spec': node {number} comes after one that does not stand before it")
        return spec


def ask_fields(
    queue: QueueKeys, workflow_id: str, fields: list[str], *, tell_end: bool = False
) -> RequestPlan[list[bytes | None]]:
    """Read any number of fields of a workflow."""
    values: list[bytes | None] = []
    for first in range(0, len(fields), FIELDS_MAX):
        page = yield look_at_workflow(queue, workflow_id, fields[first : first + FIELDS_MAX], tell_end=tell_end)
        if page is None:
            raise WorkflowNotFoundError(queue.name, workflow_id, "there is no such workflow, or it is kept no longer")
        values += page
    return values


def ask_result(queue: QueueKeys, workflow_id: str, result_type: Any, *, tell_end: bool) -> RequestPlan[Any]:
    """Read the result of a workflow, `NOT_YET` while it runs."""
    state, spec = yield from ask_fields(queue, workflow_id, ["state", "spec"], tell_end=tell_end)
    stored = Stored(queue, workflow_id)
    stands = stored.state(state)
    if stands is WorkflowState.RUNNING:
        return NOT_YET
    if stands is WorkflowState.CANCELLED:
        raise WorkflowCancelledError(queue.name, workflow_id, "it was cancelled")
    described = stored.spec(spec)
    if stands is WorkflowState.FAILED:
        raise WorkflowFailedError(queue.name, workflow_id, (yield from _ask_failure(queue, workflow_id, described)))
    data = yield from _ask_tree(queue, workflow_id, described, described.exits)
    return decode_result(data, result_type) if data != b"null" else None


def _ask_failure(queue: QueueKeys, workflow_id: str, described: Spec) -> RequestPlan[str]:
    count = len(described.nodes)
    values = yield from ask_fields(queue, workflow_id, [f"{kind}{number}" for number in range(count) for kind in "se"])
    failed = [number for number in range(count) if values[2 * number] == b"f"]
    if not failed:
        return "it failed"
    error = (values[2 * failed[0] + 1] or b"").decode("utf-8", "replace")
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"step {described.nodes[failed[0]][0]!r} failed{more}: {error}"


def _ask_tree(queue: QueueKeys, workflow_id: str, described: Spec, tree: Any) -> RequestPlan[bytes]:
    """Read the results of a tree of nodes, as JSON."""
    if isinstance(tree, dict):
        parts = []
        for name, branch in tree.items():
            data = yield from _ask_tree(queue, workflow_id, described, branch)
            parts.append(msgspec.json.encode(name) + b":" + data)
        return b"{" + b",".join(parts) + b"}"
    if isinstance(tree, list):
        parts = []
        for branch in tree:
            parts.append((yield from _ask_tree(queue, workflow_id, described, branch)))
        return b"[" + b",".join(parts) + b"]"
    stored = Stored(queue, workflow_id)
    if not isinstance(tree, int) or not 0 <= tree < len(described.nodes):
        raise stored.damaged(f"field 'spec' has an exit {tree!r:.100}, which is no node")
    name, _, its_queue, _, is_group, _ = described.nodes[tree]
    if not is_group:
        result = (yield from ask_fields(queue, workflow_id, [f"r{tree}"]))[0] or b"null"
        oversized = _oversized(result)
        if oversized is not None:
            raise ResultTooLargeError(its_queue, f"{workflow_id}.{name}", oversized.size, oversized.limit)
        return result
    total = stored.number(f"gt{tree}", (yield from ask_fields(queue, workflow_id, [f"gt{tree}"]))[0])
    results: list[bytes] = []
    for first in range(0, total, FIELDS_MAX):
        count = min(FIELDS_MAX, total - first)
        page = yield read_results(queue, workflow_id, "g", tree, first=first, count=count)
        for number, each in enumerate(page, start=first):
            oversized = _oversized(each or b"")
            if oversized is not None:
                found = yield read_step(queue, workflow_id, tree, first=number, count=1, most=0)
                member = found.members[0] if found is not None and found.members else None
                where = (member.queue if member is not None else "") or queue.name
                task_id = (member.task_id if member is not None else "") or f"{workflow_id}.{name}.{number}"
                raise ResultTooLargeError(where, task_id, oversized.size, oversized.limit)
            results.append(each or b"null")
    return b"[" + b",".join(results) + b"]"


def _oversized(data: bytes) -> OversizedResult | None:
    """Return what a workflow keeps in place of a result that was too large to be stored; see `lua/_flow.lua`."""
    return read_oversized(data[1:]) if data.startswith(b"!") else None


_KINDS = ("s", "z", "e", "gt", "gd", "gf")
"""Fields of each node that tell how it stands."""


LOOKED_UP_MAX = 100
"""Maximum number of started steps whose tasks are read for their retries."""


def ask_attempts(keys: Keys, task_queue: str, task_id: str) -> RequestPlan[dict[str, Any]]:
    """Return `retried`, `max_retry` and `error` of a started step whose task has failed, otherwise {}."""
    stored = yield look(keys.queue(task_queue), task_id)
    if stored is None:
        return {}
    try:
        message = decode_message(stored.message)
    except WireFormatError:
        return {}
    if not message.retried:
        return {}
    return {"retried": message.retried, "max_retry": message.retry, "error": message.error_msg}


def ask_graph(keys: Keys, home: str, workflow_id: str) -> RequestPlan[WorkflowGraph]:
    """Read a workflow with all its steps. Add the failure counts of the first `LOOKED_UP_MAX` started steps."""
    queue = keys.queue(home)
    facts = yield from ask_fields(queue, workflow_id, ["state", "name", "created", "ended", "spec"])
    state, name, created, ended, spec = facts
    stored = Stored(queue, workflow_id)
    nodes = stored.spec(spec).nodes
    fields = [f"{kind}{number}" for number in range(len(nodes)) for kind in _KINDS]
    values = yield from ask_fields(queue, workflow_id, fields)
    width = len(_KINDS)
    steps = [
        _step(stored, workflow_id, nodes, number, values[number * width : (number + 1) * width], state)
        for number in range(len(nodes))
    ]
    started = [number for number, step in enumerate(steps) if step.state is StepState.STARTED and step.task_id]
    for number in started[:LOOKED_UP_MAX]:
        step = steps[number]
        steps[number] = replace(step, **(yield from ask_attempts(keys, step.queue, step.task_id)))
    total_steps, counts = counted(tuple(steps))
    info = WorkflowInfo(
        id=workflow_id,
        queue=queue.name,
        name=(name or b"").decode("utf-8", "replace"),
        state=stored.state(state),
        created_at=stored.time("created", created),
        ended_at=stored.time("ended", ended) if ended else None,
        total=total_steps,
        counts=counts,
    )
    return WorkflowGraph(info=info, steps=tuple(steps))


def ask_step(
    keys: Keys, home: str, workflow_id: str, name: str
) -> RequestPlan[tuple[str, WorkflowState, int, StepInfo | None]]:
    """Read one step of a workflow: name and state of that, the number of the step and the step, or None for none."""
    queue = keys.queue(home)
    state, called, spec = yield from ask_fields(queue, workflow_id, ["state", "name", "spec"])
    stored = Stored(queue, workflow_id)
    nodes = stored.spec(spec).nodes
    title, stands = (called or b"").decode("utf-8", "replace"), stored.state(state)
    for number, node in enumerate(nodes):
        if node[0] == name:
            values = yield from ask_fields(queue, workflow_id, [f"{kind}{number}" for kind in _KINDS])
            step = _step(stored, workflow_id, nodes, number, values, state)
            if step.state is StepState.STARTED and step.task_id:
                step = replace(step, **(yield from ask_attempts(keys, step.queue, step.task_id)))
            return title, stands, number, step
    return title, stands, -1, None


def _step(
    stored: Stored, workflow_id: str, nodes: list[Any], number: int, values: list[bytes | None], state: bytes | None
) -> StepInfo:
    """Return a step from the values of its `_KINDS`, of a workflow in this state."""
    name, task, its_queue, parents, is_group, is_callback = nodes[number]
    own_state, at, error, total, done, failed = values
    stands = _STATES.get(own_state or b"w", StepState.WAITING)
    if state == b"cancelled" and stands in (StepState.WAITING, StepState.STARTED):
        stands = StepState.CANCELLED
    is_over = stands not in (StepState.WAITING, StepState.STARTED)
    return StepInfo(
        name=name,
        task=task,
        queue=its_queue,
        task_id="" if is_group else f"{workflow_id}.{name}",
        state=stands,
        after={nodes[parent][0]: _WHEN.get(letter, "end") for parent, letter in parents},
        is_callback=is_callback,
        ended_at=stored.time(f"z{number}", at) if at and is_over else None,
        error=(error or b"").decode("utf-8", "replace"),
        members=stored.number(f"gt{number}", total) if is_group else None,
        succeeded=stored.number(f"gd{number}", done),
        failed=stored.number(f"gf{number}", failed),
    )


def ask_cancel(keys: Keys, home: str, workflow_id: str) -> RequestPlan[bool]:
    """Cancel a workflow: its steps are dropped when they are fetched, and who runs one is told."""
    queue = keys.queue(home)
    answer = yield cancel_workflow(queue, workflow_id)
    if answer is None:
        raise WorkflowNotFoundError(home, workflow_id, "there is no such workflow, or it is kept no longer")
    is_cancelled: bool = answer[0]
    if is_cancelled:
        for name in (home, *answer[1]):
            for task_id in (yield revoke_steps(keys.queue(name), workflow_id)):
                yield cancel(keys.cancel, task_id)
    return is_cancelled


def ask_retry(queue: QueueKeys, workflow_id: str) -> RequestPlan[int]:
    """Run the steps of a workflow that failed again, and return how many."""
    stored = Stored(queue, workflow_id)
    nodes = stored.spec((yield from ask_fields(queue, workflow_id, ["spec"]))[0]).nodes
    states = yield from ask_fields(queue, workflow_id, [f"s{number}" for number in range(len(nodes))])
    failures = yield from ask_fields(queue, workflow_id, [f"gf{number}" for number in range(len(nodes))])
    count = 0
    for number, node in enumerate(nodes):
        if node[4] and stored.number(f"gf{number}", failures[number]) > 0:
            cursor = "0"
            while True:
                cursor, members = yield retry_steps(queue, workflow_id, number, node[0], cursor=cursor)
                count += members
                if cursor == "0":
                    break
        elif not node[4] and states[number] == b"f":
            count += (yield retry_steps(queue, workflow_id, number, node[0]))[1]
    return count
