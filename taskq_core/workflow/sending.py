"""Encode a workflow for Redis. Messages are stored in pieces, which a script joins when earlier results are known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec

from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX, Argument, Confirmation, Operation
from taskq_core.broker.operations.workflows import WorkflowPart, add_members, close_groups, create_workflow
from taskq_core.client.outbox import OutboxRow
from taskq_core.client.preparer import PAYLOAD_MAX, Preparer, new_task_id
from taskq_core.codec import Later
from taskq_core.errors import (
    BrokerError,
    EnqueueError,
    EnqueueUnknownError,
    PayloadTooLargeError,
    TaskArgumentsError,
    WorkflowDefinitionError,
)
from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.handles.workflow_plans import FAILED
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Peeked, Signature
from taskq_core.tasks.options import TaskOptions
from taskq_core.tasks.plan import Plan
from taskq_core.tasks.remote import RemoteTask
from taskq_core.tasks.task import Task
from taskq_core.telemetry import LINKS, LINKS_MAX, NO_RUN, ProducerSpan, names
from taskq_core.wire import Keys, QueueKeys
from taskq_core.wire.tokens import new_token
from taskq_core.workflow.graph import Before, Failure, Graph, Node, Result

STEP_KEPT_S = 86_400
"""Retention in seconds of a step that a Go worker ran. During this time, a taskq worker finds that the step has
ended."""
WORKFLOW, WORKFLOW_QUEUE = "taskq-workflow", "taskq-workflow-queue"
"""Headers of a step: the id and the home queue of its workflow."""
Entry = tuple[str, str, Argument]
"""A field of a stored workflow: the suffix of its key, its name and its value."""


class Outgoing:
    """A workflow ready to be sent.

    Args:
        preparer: Makes keys, headers and spans.
        graph: The workflow. Groups that are not streamed have lists of members.
        workflow_id: Id of the workflow.
        home: Home queue of the workflow.
        span: Producer span of the workflow, whose trace all steps continue.
        streams: The groups whose members are sent after the workflow has begun.
        parent: For sub-tasks of a task in the home queue: the name of the call in the task, and the task's id.

    Attributes:
        queues: The queues of its steps, by name.
        confirm: The strongest confirmation by Redis replicas that any step requires.
    """

    def __init__(
        self,
        preparer: Preparer,
        graph: Graph,
        workflow_id: str,
        home: QueueKeys,
        span: ProducerSpan,
        streams: Sequence[Node] = (),
        parent: tuple[str, str] | None = None,
    ) -> None:
        self.graph = graph
        self.id = workflow_id
        self.home = home
        self.span = span
        self.queues: dict[str, QueueKeys] = {home.name: home}
        self.confirm: Confirmation | None = None
        self.streams = streams
        self._parent = parent
        self._preparer = preparer
        self._propagated = preparer.propagated()
        self._plans: dict[tuple[int, int], tuple[BaseTask[Any], Plan, bool, bytes]] = {}
        self._traces: dict[int, Mapping[str, str]] = {}
        self._trace()
        self._entries = self._describe()

    @classmethod
    def start(
        cls,
        preparer: Preparer,
        graph: Graph,
        streams: Sequence[Node] = (),
        *,
        workflow_id: str | None = None,
        parent: tuple[str, str] | None = None,
    ) -> Self:
        """Choose the id of a workflow if none is given, start its span, and encode it."""
        workflow_id, home = workflow_id or new_task_id(), home_of(graph, preparer.keys)
        span = preparer.tracing.start_producer(home.name, graph.details.name or "workflow", workflow_id)
        try:
            return cls(preparer, graph, workflow_id, home, span, streams, parent)
        except BaseException as error:
            span.end(error)
            raise

    def defer(self, handle: WorkflowHandle) -> None:
        """Mark a workflow as deferred: it was created, and is sent later or never."""
        handle.mark_deferred()
        self.span.end_as_created(self.home.name)

    def begin_sending(self) -> None:
        """Start the span of the send of a deferred workflow."""
        created = [self.span.span_context]
        self.span = self._preparer.tracing.start_sending(self.home.name, created, self.title, self.id)

    @property
    def title(self) -> str:
        """The name of the workflow in error messages and outboxes."""
        return self.graph.details.name or "workflow"

    def error(self, cause: BrokerError, *, has_begun: bool) -> EnqueueError:
        """Return the error for a failed enqueue."""
        kind = EnqueueUnknownError if has_begun or cause.may_have_happened else EnqueueError
        return kind(self.title, self.home.name, self.id, str(cause))

    # --- the workflow -------------------------------------------------------------------------------------------------

    def _describe(self) -> list[Entry]:
        graph = self.graph
        reported = {number for node in graph.nodes for number in _failures(node.before)}
        entries: list[Entry] = []
        shown = []
        for node, children in zip(graph.nodes, graph.children(), strict=True):
            number, parents = node.number, node.before.parents
            entries += (("", f"s{number}", "w"), ("", f"p{number}", len(parents)))
            if children:
                entries.append(("", f"c{number}", "".join(f"{child}{letter} " for child, letter in children)))
            if parents and all(letter == FAILED for letter in parents.values()):
                entries.append(("", f"q{number}", "1"))
            if node.is_excused:
                entries.append(("", f"t{number}", "1"))
            call, queue = first_call(node), ""
            task = "" if call is None else call.task.name
            if node.call is None:
                entries += self._describe_group(node)
            else:
                queue = self._preparer.plan(node.call.task).queue.name
                entries.append(("", f"m{number}", self.pack(node, node.call, self.task_id(node))))
            if number in reported:
                task_id = "" if node.is_group else self.task_id(node)
                about = msgspec.json.encode({"step": node.name, "task": task, "task_id": task_id})
                entries.append(("", f"i{number}", about[1:-1]))
            shown.append([node.name, task, queue, list(parents.items()), node.is_group, node.is_callback])
        groups = [node for node in graph.nodes if node.is_group]
        first: dict[str, Argument] = {
            "state": "building",
            "queue": self.home.name,
            "prefix": self.home.prefix,
            "name": graph.name,
            "kept_s": int(graph.details.keep_s),
            "open": len(graph.nodes),
            "nodes": len(graph.nodes),
            "held": _numbers(node for node in groups if node not in self.streams),
            "groups": _numbers(groups),
            "spec": msgspec.json.encode({"nodes": shown, "exits": graph.exits}),
        }
        if self.streams:
            first["streams"] = _numbers(self.streams)
        if self._parent is not None:
            first["parent"] = "\n".join(self._parent)
        return [*(("", name, value) for name, value in first.items()), *entries]

    def _describe_group(self, node: Node) -> Iterator[Entry]:
        number = node.number
        yield "", f"n:{node.name}", number
        count = 0
        if node in self.streams:
            yield "", f"go{number}", "1"
        else:
            for member in node.members:
                yield f":h{number}", str(count), self.pack_member(node, member, count)
                count += 1
        yield "", f"gt{number}", count

    def operations(self) -> Iterator[Operation[bool]]:
        """Yield the operations that store and start the workflow. Call this method only once."""
        *parts, last = self._parts()
        slot = ReceiptSlot(new_token())
        has_parent = self._parent is not None
        for part in parts:
            yield create_workflow(self.home, self.id, part, slot, roots=None, has_parent=has_parent)
        yield create_workflow(
            self.home, self.id, last, slot, roots=self._roots, has_parent=has_parent, confirm=self.confirm
        )

    def rows(self) -> list[OutboxRow]:
        """Return the workflow as rows of an outbox. The rows may be stored in any order."""
        parts = self._parts()
        return [
            OutboxRow(
                receipt=new_token(),
                queue=self.home.name,
                name=self.title,
                task=NewTask(self.id, WorkflowPart(len(parts), self._roots, part).pack(), confirm=self.confirm),
                is_workflow=True,
            )
            for part in parts
        ]

    def _parts(self) -> list[list[Entry]]:
        """Split the fields of the workflow into parts of limited size.

        The fields are removed from this object, so that they use no memory while group members are streamed.
        """
        entries, self._entries = self._entries, []
        parts: list[list[Entry]] = [[]]
        size = 0
        for entry in entries:
            length = len(entry[2]) if isinstance(entry[2], str | bytes) else 8
            if parts[-1] and (size + length > BATCH_BYTES or len(parts[-1]) >= 5 * BATCH_MAX):
                parts.append([])
                size = 0
            parts[-1].append(entry)
            size += length + len(entry[1])
        return parts

    @property
    def _roots(self) -> list[int]:
        return [node.number for node in self.graph.nodes if not node.before.parents]

    def opened(self, problem: str = "") -> Operation[int]:
        """Return the operation that closes the streamed groups to new members. With a problem, the groups fail."""
        return close_groups(self.home, self.id, problem=problem)

    def batch(self, node: Node, first: int, members: Sequence[bytes]) -> Operation[bool]:
        """Return the operation that adds a batch of members to a streamed group."""
        return add_members(self.home, self.id, node.number, first=first, members=members)

    # --- messages -----------------------------------------------------------------------------------------------------

    def task_id(self, node: Node, member: int | None = None) -> str:
        """Return the id of the task of a step."""
        return f"{self.id}.{node.name}" if member is None else f"{self.id}.{node.name}.{member}"

    def pack_member(self, node: Node, member: Any, number: int) -> bytes:
        """Encode a member of a group for storage in Redis.

        Raises:
            WorkflowDefinitionError: The object cannot be a member. The error names the group and the member.
        """
        if not isinstance(member, Signature):
            raise WorkflowDefinitionError(
                node.name, f"member {number} of a streamed group must be a signature, got {member!r:.200}"
            )
        return self.pack(node, member, self.task_id(node, number))

    def pack(self, node: Node, call: Signature[Any], task_id: str) -> bytes:
        """Encode a step for storage in Redis: its task id, queue, start time, and the pieces of its message."""
        plan, is_kept, headers = self._plan(node, call.task)
        head, tail = plan.template.around_payload(task_id, headers)
        pieces = [_piece(b"H", head), _piece(b"T", tail), *self._payload(node, call)]
        start = "-"
        if plan.start_at_s is not None:
            start = f"={plan.start_at_s}"
        elif plan.start_in_ms is not None:
            start = f"+{plan.start_in_ms}"
        if plan.marks:
            start += f"|{plan.marks}"
        first = f"{task_id} {'k' if is_kept else 't'} {start} {plan.queue.name}\n"
        return first.encode() + b"".join(pieces)

    def _payload(self, node: Node, call: Signature[Any]) -> list[bytes]:
        positional = () if call.is_immutable else tuple(Later(each) for each in node.before.positional)
        named = {name: Later(each) for name, each in node.before.named.items()}
        try:
            parts = _in_parts(call, positional, named)
        except TaskArgumentsError as error:
            problem = error.problem if not error.parameter else f"argument {error.parameter!r}: {error.problem}"
            found = WorkflowDefinitionError(node.name, f"task {call.task.name!r} {problem}")
        else:
            size = sum(len(part) for part in parts if isinstance(part, bytes))
            if size > PAYLOAD_MAX:
                raise PayloadTooLargeError(call.task.name, size, PAYLOAD_MAX)
            return [each for part in parts for each in self._pieces(part)]
        raise found from None

    def _pieces(self, part: "bytes | Later") -> list[bytes]:
        if isinstance(part, bytes):
            return [_piece(b"L", part)] if part else []
        if isinstance(part.what, Failure):
            return [_piece(b"E", ",".join(map(str, part.what.nodes)).encode())]
        assert isinstance(part.what, Result)
        return self._result_pieces(part.what.tree)

    def _result_pieces(self, tree: Any) -> list[bytes]:
        if isinstance(tree, int):
            return [_piece(b"G" if self.graph.nodes[tree].is_group else b"R", str(tree).encode())]
        is_named = isinstance(tree, dict)
        pieces = [_piece(b"L", b"{" if is_named else b"[")]
        for index, branch in enumerate(tree.items() if is_named else tree):
            if index:
                pieces.append(_piece(b"L", b","))
            if is_named:
                name, branch = branch
                pieces.append(_piece(b"L", msgspec.json.encode(name) + b":"))
            pieces += self._result_pieces(branch)
        return [*pieces, _piece(b"L", b"}" if is_named else b"]")]

    def _trace(self) -> None:
        """Record a span `create` for each step and group. The run of the step continues the trace of this span."""
        tracing, graph = self._preparer.tracing, self.graph
        if not tracing.is_active or len(graph.nodes) == 1:
            return
        for number, node in enumerate(graph.nodes):
            queue = self.home if node.call is None else self._preparer.plan(node.call.task).queue
            name = node.name if node.call is None else node.call.task.name
            span = tracing.start_producer(
                queue.name, name, self.task_id(node), context=self.span.context, operation=names.CREATE
            )
            self._traces[number] = span.trace_headers()
            span.end()

    def _plan(self, node: Node, task: BaseTask[Any]) -> tuple[Plan, bool, bytes]:
        """Return the enqueue plan of a step's task, whether the task is stored after success, and its headers.

        The result is cached by task and step.
        """
        parents = [self._traces[each] for each in node.before.parents if each in self._traces]
        key = (id(task), node.number if node.number in self._traces else -1)
        known = self._plans.get(key)
        if known is None:
            options = task.options
            _check_options(node, options)
            is_kept = options.retention_s > 0
            plan = self._preparer.plan(task)
            if not is_kept:
                plan = self._preparer.plan(task.using(retention=STEP_KEPT_S))
            if plan.confirm is not None:
                self.confirm = _stronger(self.confirm, plan.confirm)
            own = {WORKFLOW: self.id, WORKFLOW_QUEUE: self.home.name}
            if parents:
                is_join = len(parents) > 1 or any(self.graph.nodes[each].is_group for each in node.before.parents)
                sends = [each.get("traceparent", "") for each in parents] if is_join else []
                own[LINKS] = ",".join([NO_RUN, *sends][:LINKS_MAX])  # the script that starts the step replaces NO_RUN
            trace = self._traces.get(node.number) or self.span.trace_headers()
            headers = self._preparer.headers(plan, trace, self._propagated, more=own)
            self.queues[plan.queue.name] = plan.queue
            if len(self._plans) >= 1000:  # the cache is limited, because members of a group may have different options
                self._plans.clear()
            known = self._plans[key] = (task, plan, is_kept, headers)
        return known[1], known[2], known[3]


def _failures(before: Before) -> Iterator[int]:
    for what in (*before.positional, *before.named.values()):
        if isinstance(what, Failure):
            yield from what.nodes


def _numbers(nodes: Iterable[Node]) -> str:
    return " ".join(str(node.number) for node in nodes)


def _piece(kind: bytes, data: bytes) -> bytes:
    return b"%s%d:%s" % (kind, len(data), data)


def _in_parts(
    call: Signature[Any], positional: tuple[Later, ...], named: Mapping[str, Later]
) -> Sequence[bytes | Later]:
    task = call.task
    if not positional and not named:
        return (task.encode(call.args, call.kwargs),)
    if isinstance(task, Task):
        return task.codec.encode_in_parts((*positional, *call.args), {**call.kwargs, **named})
    assert isinstance(task, RemoteTask)
    if positional:
        return positional[:1]
    parts: list[bytes | Later] = []
    written = task.encode((), call.kwargs)[:-1]
    for name, value in named.items():
        written += (b"" if written == b"{" else b",") + msgspec.json.encode(name) + b":"
        parts += (written, value)
        written = b""
    return [*parts, written + b"}"]


def _check_options(node: Node, options: TaskOptions) -> None:
    """Refuse options that a step cannot have.

    Raises:
        WorkflowDefinitionError: The step has such an option.
    """
    refused = {
        "task_id": (options.task_id is not None, "the id of a step is made from the workflow's id and its name"),
        "unique_for": (options.unique_s > 0 or options.unique is not None, "a step cannot be unique"),
        "aggregate": (options.aggregate is not None, "a step is not combined with other tasks"),
    }
    for name, (is_set, why) in refused.items():
        if is_set:
            raise WorkflowDefinitionError(node.name, f"the option {name} is not allowed in a workflow: {why}")


def _stronger(one: Confirmation | None, other: Confirmation) -> Confirmation:
    if one is None:
        return other
    return Confirmation(max(one.replicas, other.replicas), one.fsynced or other.fsynced)


def home_of(graph: Graph, keys: Keys) -> QueueKeys:
    """Return the home queue of a workflow: the given queue, or the queue of its first step that is not remote.

    The queue of a remote task may have only Go workers, which do not start the next steps.
    """
    name = graph.details.queue
    if name is None:
        calls = [call for node in graph.nodes if (call := first_call(node)) is not None]
        local = [call for call in calls if not isinstance(call.task, RemoteTask)]
        for call in (local or calls)[:1]:
            name = call.task.options.queue
    return keys.queue(name or "default")


def first_call(node: Node) -> Signature[Any] | None:
    """Return the call of a step, or the first member of a group if it is known."""
    members = node.members
    call: Any = node.call
    if isinstance(members, Peeked):
        call = members.first
    elif isinstance(members, Sequence) and members:
        call = members[0]
    return call if isinstance(call, Signature) else None
