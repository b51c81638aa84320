"""Request plans that read, cancel and retry a workflow."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from taskq_core.broker.operations.services import cancel
from taskq_core.broker.operations.views import read_task
from taskq_core.broker.operations.workflows import (
    FIELDS_MAX,
    cancel_workflow,
    read_results,
    read_step,
    read_workflow,
    retry_steps,
    revoke_steps,
)
from taskq_core.broker.plans import RequestPlan
from taskq_core.clock import utc_datetime
from taskq_core.codec import decode_result
from taskq_core.codec.oversized import OversizedResult, read_oversized
from taskq_core.errors import (
    BrokerError,
    ResultError,
    ResultTooLargeError,
    WireFormatError,
    WorkflowCancelledError,
    WorkflowDamagedError,
    WorkflowFailedError,
    WorkflowNotFoundError,
)
from taskq_core.handles.source import NOT_YET
from taskq_core.handles.workflow_records import StepInfo, StepState, WorkflowGraph, WorkflowInfo, WorkflowState, counted
from taskq_core.wire import Keys, QueueKeys, decode_message

STOP, CONTINUE, ALWAYS, FAILED = "s", "c", "z", "f"
"""Conditions under which a node of a workflow runs after a predecessor. STOP: the predecessor succeeded. CONTINUE: it
succeeded or failed, and the workflow can still succeed after its failure. ALWAYS: it succeeded or failed, and its
failure fails the workflow. FAILED: it failed."""
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


NAMED_MAX = 20
"""Maximum number of failed steps that the error of a workflow names."""
MEMBER_ERROR_CHARS = 500
"""Maximum length of the error of one failed part in `ask_each`."""
ERROR_CHARS = 2_000
"""Maximum length of the texts of failed steps in the error of a workflow."""


class NodeSpec(msgspec.Struct, array_like=True):
    """A node of a workflow, in the stored form that `workflow.sending` writes.

    Attributes:
        name: Name of the node.
        task: The name of its task.
        queue: The queue of its task, "" for a group.
        parents: Predecessors of the node, each with the condition under which the node runs after it.
        is_group: Whether it is a group.
        is_callback: Whether it is a callback of a part of the workflow.
    """

    name: str
    task: str
    queue: str
    parents: list[tuple[int, str]]
    is_group: bool
    is_callback: bool


class Spec(msgspec.Struct):
    """The nodes of a workflow, and the nodes whose results form its result."""

    nodes: list[NodeSpec]
    exits: Any


@contextmanager
def damage_named(queue: QueueKeys, workflow_id: str) -> Iterator[None]:
    """Raise WorkflowDamagedError if a stored field cannot be read."""
    try:
        yield
    except (ResultError, BrokerError):  # some of these errors are also a ValueError or an OSError, but mean no damage
        raise
    except (ValueError, OverflowError, OSError, msgspec.DecodeError) as error:
        raise WorkflowDamagedError(queue.name, workflow_id, f"damaged data in Redis: {error}") from None


def read_state(value: bytes | None) -> WorkflowState:
    """Decode the field that contains the state of a workflow."""
    try:
        return WorkflowState((value or b"").decode())
    except ValueError:
        raise ValueError(f"unknown workflow state {value!r:.100}") from None


def read_time(field: str, value: bytes | None) -> datetime:
    """Decode a field that contains a time in Unix ms."""
    try:
        return utc_datetime(int(value or b"") / 1000)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"field {field!r} must be a time in Unix ms, got {value!r:.100}") from None


def _count(field: str, value: bytes | None) -> int:
    try:
        return int(value or 0)
    except ValueError:
        raise ValueError(f"field {field!r} must be a number, got {value!r:.100}") from None


def _spec(value: bytes | None) -> Spec:
    try:
        spec = msgspec.json.decode(value or b"", type=Spec)
    except msgspec.DecodeError as error:
        raise ValueError(f"field 'spec': {error}") from None
    for number, node in enumerate(spec.nodes):
        if not all(0 <= parent < number for parent, _ in node.parents):
            raise ValueError(f"field 'spec': node {number} comes before its predecessor")
    return spec


def ask_fields(
    queue: QueueKeys, workflow_id: str, fields: list[str], *, publish_end: bool = False
) -> RequestPlan[list[bytes | None]]:
    """Return the values of some fields of a workflow."""
    values: list[bytes | None] = []
    for first in range(0, len(fields), FIELDS_MAX):
        page = yield read_workflow(queue, workflow_id, fields[first : first + FIELDS_MAX], publish_end=publish_end)
        if page is None:
            raise WorkflowNotFoundError(queue.name, workflow_id, "there is no such workflow, or it is no longer stored")
        values += page
    return values


def ask_result(queue: QueueKeys, workflow_id: str, result_type: Any) -> RequestPlan[Any]:
    """Return the result of a workflow. While it runs, return `NOT_YET` and ask workers to publish its end."""
    data = yield from ask_raw_result(queue, workflow_id)
    if data is NOT_YET:
        return NOT_YET
    return decode_result(data, result_type) if data != b"null" else None


def ask_raw_result(queue: QueueKeys, workflow_id: str) -> RequestPlan[Any]:
    """Return the result of a workflow as JSON. While it runs, return `NOT_YET` and ask workers to publish its end."""
    fields = yield from ask_fields(queue, workflow_id, ["state", "spec"], publish_end=True)
    with damage_named(queue, workflow_id):
        state = read_state(fields[0])
        if state is WorkflowState.RUNNING:
            return NOT_YET
        if state is WorkflowState.CANCELLED:
            raise WorkflowCancelledError(queue.name, workflow_id, "the workflow was cancelled")
        spec = _spec(fields[1])
        if state is WorkflowState.FAILED:
            raise WorkflowFailedError(queue.name, workflow_id, (yield from _ask_failure(queue, workflow_id, spec)))
        return (yield from _ask_tree(queue, workflow_id, spec, spec.exits))


def ask_each(queue: QueueKeys, workflow_id: str) -> RequestPlan[tuple[bytes, dict[int, str]]]:
    """Return the results of the parts of an ended group as a JSON list, and the errors of failed parts by number.

    The result of a failed part is null.
    """
    fields = yield from ask_fields(queue, workflow_id, ["spec"])
    errors: dict[int, str] = {}
    with damage_named(queue, workflow_id):
        spec = _spec(fields[0])
        if isinstance(spec.exits, int):
            size = yield from _ask_size(queue, workflow_id, spec.exits)
            for first in range(0, size, FIELDS_MAX):
                step = yield read_step(queue, workflow_id, spec.exits, first=first, count=FIELDS_MAX, most=0)
                members = () if step is None else step.members
                errors.update((each.number, _shortened(each.failure)) for each in members if each.failure)
            return (yield from _ask_tree(queue, workflow_id, spec, spec.exits)), errors
        parts: list[bytes] = []
        for number, tree in enumerate(spec.exits):
            ends = leaves(tree)
            states = yield from ask_fields(queue, workflow_id, [f"s{each}" for each in ends])
            if all(state == b"d" for state in states):
                parts.append((yield from _ask_tree(queue, workflow_id, spec, tree)))
            else:
                parts.append(b"null")
                errors[number] = yield from _ask_failure(queue, workflow_id, spec, _with_predecessors(spec, ends))
    return b"[" + b",".join(parts) + b"]", errors


def leaves(tree: Any) -> list[int]:
    """Return the node numbers in a tree of nested lists and dicts, in order."""
    if isinstance(tree, int):
        return [tree]
    return [each for branch in (tree.values() if isinstance(tree, dict) else tree) for each in leaves(branch)]


def _with_predecessors(spec: Spec, nodes: list[int]) -> set[int]:
    found: set[int] = set()
    while nodes:
        number = nodes.pop()
        if number not in found:
            found.add(number)
            nodes += [parent for parent, _ in spec.nodes[number].parents]
    return found


def _shortened(error: bytes) -> str:
    return error.decode("utf-8", "replace")[:MEMBER_ERROR_CHARS]


def _ask_size(queue: QueueKeys, workflow_id: str, group: int) -> RequestPlan[int]:
    """Return the number of members of a group."""
    return _count(f"gt{group}", (yield from ask_fields(queue, workflow_id, [f"gt{group}"]))[0])


def _ask_failure(
    queue: QueueKeys, workflow_id: str, spec: Spec, only: Collection[int] | None = None
) -> RequestPlan[str]:
    """Return a text with the names and errors of at most `NAMED_MAX` failed steps and members of groups.

    With `only`, of these nodes.
    """
    kinds = ("s", "e", "gf")
    values = yield from ask_fields(
        queue, workflow_id, [f"{kind}{number}" for number in range(len(spec.nodes)) for kind in kinds]
    )
    found: list[tuple[str, bytes]] = []
    total = 0
    for number, node in enumerate(spec.nodes):
        if only is not None and number not in only:
            continue
        state, error, failed = values[len(kinds) * number : len(kinds) * (number + 1)]
        if state != b"f":
            continue
        total += _count(f"gf{number}", failed) if node.is_group and failed else 1
        if node.is_group and len(found) < NAMED_MAX:
            step = yield read_step(queue, workflow_id, number, first=0, count=NAMED_MAX, most=0, only_failed=True)
            members = () if step is None else step.members
            found += [(f"step {node.name!r} failed: member {each.number}", each.failure) for each in members]
        elif not node.is_group:
            found.append((f"step {node.name!r} failed", error or b""))
    if not found:
        return "it failed"
    shown = found[:NAMED_MAX]
    texts = [f"{what}: {error.decode('utf-8', 'replace')[: ERROR_CHARS // len(shown)]}" for what, error in shown]
    return "; ".join(texts if total <= len(shown) else [*texts, f"and {total - len(shown)} more"])


def _ask_tree(queue: QueueKeys, workflow_id: str, spec: Spec, tree: Any) -> RequestPlan[bytes]:
    """Return the results of a tree of nodes as one JSON value of the same shape."""
    if isinstance(tree, dict | list):
        parts: list[bytes] = []
        for branch in tree.values() if isinstance(tree, dict) else tree:
            parts += ((yield from _ask_tree(queue, workflow_id, spec, branch)),)
        if isinstance(tree, list):
            return b"[" + b",".join(parts) + b"]"
        named = (msgspec.json.encode(name) + b":" + data for name, data in zip(tree, parts, strict=True))
        return b"{" + b",".join(named) + b"}"
    if not isinstance(tree, int) or not 0 <= tree < len(spec.nodes):
        raise ValueError(f"field 'spec': there is no node {tree!r:.100}")
    node = spec.nodes[tree]
    if not node.is_group:
        result = (yield from ask_fields(queue, workflow_id, [f"r{tree}"]))[0] or b"null"
        oversized = _oversized(result)
        if oversized is not None:
            raise ResultTooLargeError(node.queue, f"{workflow_id}.{node.name}", oversized.size, oversized.limit)
        return result
    total = yield from _ask_size(queue, workflow_id, tree)
    results: list[bytes] = []
    for first in range(0, total, FIELDS_MAX):
        count = min(FIELDS_MAX, total - first)
        page = yield read_results(queue, workflow_id, "g", tree, first=first, count=count)
        for number, each in enumerate(page, start=first):
            oversized = _oversized(each or b"")
            if oversized is not None:
                found = yield read_step(queue, workflow_id, tree, first=number, count=1, most=0)
                member = found.members[0]
                task_id = member.task_id or f"{workflow_id}.{node.name}.{number}"
                raise ResultTooLargeError(member.queue or queue.name, task_id, oversized.size, oversized.limit)
            results.append(each or b"null")
    return b"[" + b",".join(results) + b"]"


def _oversized(data: bytes) -> OversizedResult | None:
    """Decode the placeholder of a result that was too large to store (see `lua/_flow.lua`); None for other results."""
    return read_oversized(data[1:]) if data.startswith(b"!") else None


_KINDS = ("s", "z", "e", "gt", "gd", "gf")
"""Names of the fields of a node that `_step` reads."""


LOOKED_UP_MAX = 100
"""Maximum number of started steps whose tasks are read to show their failed attempts."""


def ask_attempts(keys: Keys, task_queue: str, task_id: str) -> RequestPlan[dict[str, Any]]:
    """Return `retried`, `max_retry` and `error` of a started step whose task has failed before, otherwise {}."""
    stored = yield read_task(keys.queue(task_queue), task_id)
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
    with damage_named(queue, workflow_id):
        nodes = _spec(spec).nodes
        steps = yield from _ask_steps(keys, queue, workflow_id, nodes, range(len(nodes)), state)
        total_steps, counts = counted(steps)
        info = WorkflowInfo(
            id=workflow_id,
            queue=queue.name,
            name=(name or b"").decode("utf-8", "replace"),
            state=read_state(state),
            created_at=read_time("created", created),
            ended_at=read_time("ended", ended) if ended else None,
            total=total_steps,
            counts=counts,
        )
    return WorkflowGraph(info=info, steps=steps)


def ask_step(
    keys: Keys, home: str, workflow_id: str, name: str
) -> RequestPlan[tuple[str, WorkflowState, int, StepInfo | None]]:
    """Read one step.

    Return the name and state of its workflow, the number of the step, and the step (None if it does not exist).
    """
    queue = keys.queue(home)
    state, title, spec = yield from ask_fields(queue, workflow_id, ["state", "name", "spec"])
    with damage_named(queue, workflow_id):
        nodes = _spec(spec).nodes
        numbers = [number for number, node in enumerate(nodes) if node.name == name]
        steps = yield from _ask_steps(keys, queue, workflow_id, nodes, numbers, state)
        found = (numbers[0], steps[0]) if steps else (-1, None)
        return (title or b"").decode("utf-8", "replace"), read_state(state), *found


def _ask_steps(
    keys: Keys,
    queue: QueueKeys,
    workflow_id: str,
    nodes: list[NodeSpec],
    numbers: Sequence[int],
    state: bytes | None,
) -> RequestPlan[tuple[StepInfo, ...]]:
    """Read some steps of a workflow whose state is known."""
    fields = [f"{kind}{number}" for number in numbers for kind in _KINDS]
    values = yield from ask_fields(queue, workflow_id, fields)
    steps: list[StepInfo] = []
    looked_up = 0
    for place, number in enumerate(numbers):
        step = _step(workflow_id, nodes, number, values[place * len(_KINDS) : (place + 1) * len(_KINDS)], state)
        if step.state is StepState.STARTED and step.task_id and looked_up < LOOKED_UP_MAX:
            looked_up += 1
            step = replace(step, **(yield from ask_attempts(keys, step.queue, step.task_id)))
        steps.append(step)
    return tuple(steps)


def _step(
    workflow_id: str, nodes: list[NodeSpec], number: int, values: list[bytes | None], workflow_state: bytes | None
) -> StepInfo:
    """Return a step, made from the values of the fields in `_KINDS`."""
    node = nodes[number]
    code, at, error, total, succeeded, failed = values
    state = _STATES.get(code or b"w", StepState.WAITING)
    if workflow_state == b"cancelled" and state in (StepState.WAITING, StepState.STARTED):
        state = StepState.CANCELLED
    is_over = state not in (StepState.WAITING, StepState.STARTED)
    return StepInfo(
        name=node.name,
        task=node.task,
        queue=node.queue,
        task_id="" if node.is_group else f"{workflow_id}.{node.name}",
        state=state,
        after={nodes[parent].name: _WHEN.get(letter, "end") for parent, letter in node.parents},
        is_callback=node.is_callback,
        ended_at=read_time(f"z{number}", at) if at and is_over else None,
        error=(error or b"").decode("utf-8", "replace"),
        members=_count(f"gt{number}", total) if node.is_group else None,
        succeeded=_count(f"gd{number}", succeeded),
        failed=_count(f"gf{number}", failed),
    )


def ask_cancel(keys: Keys, home: str, workflow_id: str) -> RequestPlan[bool]:
    """Cancel a workflow: workers drop its steps when they fetch them, and cancel the steps that run."""
    queue = keys.queue(home)
    answer = yield cancel_workflow(queue, workflow_id)
    if answer is None:
        raise WorkflowNotFoundError(home, workflow_id, "there is no such workflow, or it is no longer stored")
    is_cancelled: bool = answer[0]
    if is_cancelled:
        for name in (home, *answer[1]):
            for task_id in (yield revoke_steps(keys.queue(name), workflow_id)):
                yield cancel(keys.cancel, task_id)
    return is_cancelled


def ask_retry(queue: QueueKeys, workflow_id: str) -> RequestPlan[int]:
    """Run the failed steps of a workflow again, and return their number."""
    (spec,) = yield from ask_fields(queue, workflow_id, ["spec"])
    count = 0
    with damage_named(queue, workflow_id):
        nodes = _spec(spec).nodes
        fields = [f"{'gf' if node.is_group else 's'}{number}" for number, node in enumerate(nodes)]
        values = yield from ask_fields(queue, workflow_id, fields)
        for number, node in enumerate(nodes):
            if not node.is_group and values[number] == b"f":
                count += (yield retry_steps(queue, workflow_id, number, node.name))[1]
            elif node.is_group and _count(fields[number], values[number]) > 0:
                cursor = ""
                while cursor != "0":
                    cursor, members = yield retry_steps(queue, workflow_id, number, node.name, cursor=cursor or "0")
                    count += members
    return count
