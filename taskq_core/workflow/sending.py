"""From a graph to what is stored: messages in pieces, to be put together when the results before them are known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX, Argument, Confirmation, Operation
from taskq_core.broker.operations.workflows import WorkflowPart, add_members, close_groups, create_workflow, grow_group
from taskq_core.client.outbox import OutboxRow
from taskq_core.client.preparer import PAYLOAD_MAX, Preparer
from taskq_core.codec import Later
from taskq_core.errors import PayloadTooLargeError, TaskArgumentsError, WorkflowDefinitionError, WorkflowError
from taskq_core.execution.context import TaskContext
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Again, Signature
from taskq_core.tasks.options import TaskOptions
from taskq_core.tasks.plan import Plan
from taskq_core.tasks.remote import RemoteTask
from taskq_core.tasks.task import Task
from taskq_core.telemetry import LINKS, LINKS_MAX, NO_RUN, Carrier, ProducerSpan
from taskq_core.wire import QueueKeys
from taskq_core.wire.ids import new_token
from taskq_core.workflow.graph import FAILED, Failure, Graph, Node, Result

STEP_KEPT_S = 86_400
"""Seconds a step that keeps no result is kept where a worker ran it that knows no workflows, until that is noticed."""
MEMBERS_AT_ONCE = 100
"""Members of a group that are stored together with the workflow; of more the others are streamed."""
HELD_MAX = 10_000
"""Most members of a group that does not begin at once."""
WORKFLOW, WORKFLOW_QUEUE = "taskq-workflow", "taskq-workflow-queue"
"""Headers of a step: id of its workflow, and its home queue."""


class Outgoing:
    """A workflow ready to be sent.

    Args:
        preparer: Knows keys, headers and spans.
        graph: What it is.
        workflow_id: Its id.
        home: Its home queue.
        span: Its producer span, whose trace all its steps carry.
        is_whole: Whether it is stored as a whole, with the members of all groups, before it begins.
    """

    def __init__(
        self,
        preparer: Preparer,
        graph: Graph,
        workflow_id: str,
        home: QueueKeys,
        span: ProducerSpan,
        *,
        is_whole: bool = False,
    ) -> None:
        self.graph = graph
        self.id = workflow_id
        self.home = home
        self.span = span
        self.queues: dict[str, QueueKeys] = {home.name: home}
        self.confirm: Confirmation | None = None
        self._preparer = preparer
        self._carried = preparer.carried()
        self._plans: dict[tuple[int, int], tuple[BaseTask[Any], Plan, bool, bytes]] = {}
        self._carriers: dict[int, Carrier] = {}
        self.streams: list[tuple[Node, Iterable[Any]]] = []
        self._is_whole = is_whole
        self._counts: dict[int, int] = {}
        self._roots: list[int] = []
        self._held: list[int] = []
        self._trace()
        self._entries = self._describe()

    # --- the workflow -------------------------------------------------------------------------------------------------

    def _describe(self) -> list[tuple[str, str, Argument]]:
        graph = self.graph
        told = {number for node in graph.nodes for number in _failures(node)}
        entries: list[tuple[str, str, Argument]] = []
        shown = []
        for node, children in zip(graph.nodes, graph.children(), strict=True):
            number = node.number
            entries += (("", f"s{number}", "w"), ("", f"p{number}", len(node.parents)))
            if children:
                entries.append(("", f"c{number}", "".join(f"{child}{letter} " for child, letter in children)))
            if node.parents and all(letter == FAILED for letter in node.parents.values()):
                entries.append(("", f"q{number}", "1"))
            if node.is_excused:
                entries.append(("", f"t{number}", "1"))
            if not node.parents:
                self._roots.append(number)
            task, queue = self._describe_calls(node, entries)
            if number in told:
                task_id = "" if node.is_group else self.task_id(node)
                about = msgspec.json.encode({"step": node.name, "task": task, "task_id": task_id})
                entries.append(("", f"i{number}", about[1:-1]))
            shown.append([node.name, task, queue, list(node.parents.items()), node.is_group, node.is_callback])
        spec = msgspec.json.encode({"nodes": shown, "exits": graph.exits})
        first: list[tuple[str, str, Argument]] = [
            ("", "state", "building"),
            ("", "queue", self.home.name),
            ("", "prefix", self.home.prefix),
            ("", "name", graph.name),
            ("", "kept_s", int(graph.about.keep_s)),
            ("", "open", len(graph.nodes)),
            ("", "nodes", len(graph.nodes)),
            ("", "held", " ".join(map(str, self._held))),
            ("", "groups", " ".join(str(node.number) for node in graph.nodes if node.is_group)),
            ("", "spec", spec),
        ]
        if self.streams and not self._is_whole:
            first.append(("", "streams", " ".join(str(node.number) for node, _ in self.streams)))
        return first + entries

    def _describe_calls(self, node: Node, entries: list[tuple[str, str, Argument]]) -> tuple[str, str]:
        """Add what a node enqueues, and return names of its task and its queue, as far as they are known."""
        number = node.number
        if node.call is not None:
            entries.append(("", f"m{number}", self.pack(node, node.call, self.task_id(node))))
            return node.call.task.name, self._preparer.plan(node.call.task).queue.name
        members = node.members or ()
        entries.append(("", f"n:{node.name}", number))
        is_stream = not node.parents and not (isinstance(members, Sequence) and len(members) <= MEMBERS_AT_ONCE)
        count, task = 0, ""
        if is_stream:
            self.streams.append((node, members))
            task = members[0].task.name if isinstance(members, Sequence) else ""
            if self._is_whole:
                self._held.append(number)
                self._counts[number] = 0
                return task, ""
            entries.append(("", f"go{number}", "1"))
        else:
            self._held.append(number)
            for count, member in enumerate(members, start=1):
                if count > HELD_MAX:
                    raise WorkflowDefinitionError(
                        node.name,
                        f"has more than {HELD_MAX} members; only a group that comes after nothing may have any number",
                    )
                task = task or member.task.name
                entries.append((f":h{number}", str(count - 1), self.pack_member(node, member, count - 1)))
        entries.append(("", f"gt{number}", count))
        return task, ""

    def operations(self) -> Iterator[Operation[bool]]:
        """Yield what stores the workflow and begins it."""
        *parts, last = _parts(self._entries)
        slot = ReceiptSlot(new_token())
        for part in parts:
            yield create_workflow(self.home, self.id, part, slot, roots=None)
        yield create_workflow(self.home, self.id, last, slot, roots=self._roots, confirm=self.confirm)

    def hold(self, node: Node, first: int, members: Sequence[bytes]) -> None:
        """Let members of a stream be stored with the whole."""
        number = node.number
        self._entries += ((f":h{number}", str(k), packed) for k, packed in enumerate(members, start=first))
        self._counts[number] = first + len(members)

    def rows(self) -> list[OutboxRow]:
        """Return the whole as rows of an outbox. They are stored in any order."""
        parts = _parts([*self._entries, *(("", f"gt{number}", count) for number, count in self._counts.items())])
        name = self.graph.about.name or "workflow"
        return [
            OutboxRow(
                receipt=new_token(),
                queue=self.home.name,
                name=name,
                task=NewTask(self.id, WorkflowPart(len(parts), self._roots, part).pack(), confirm=self.confirm),
                is_workflow=True,
            )
            for part in parts
        ]

    def begun(self) -> None:
        """Let what was stored go."""
        self._entries = []

    # --- members that are streamed ------------------------------------------------------------------------------------

    def opened(self, problem: str = "") -> Operation[int]:
        """Return what says that all members were sent, or why not."""
        return close_groups(self.home, self.id, problem=problem)

    def batch(self, node: Node, first: int, members: Sequence[bytes]) -> Operation[bool]:
        """Return what adds members to a group."""
        return add_members(self.home, self.id, node.number, first=first, members=members)

    # --- messages -----------------------------------------------------------------------------------------------------

    def task_id(self, node: Node, member: int | None = None) -> str:
        """Return the id of the task of a step."""
        return f"{self.id}.{node.name}" if member is None else f"{self.id}.{node.name}.{member}"

    def pack_member(self, node: Node, member: Any, number: int) -> bytes:
        """Return what enqueues a member of a group.

        Raises:
            WorkflowDefinitionError: It cannot be one. The group and the member are named.
        """
        if not isinstance(member, Signature):
            raise WorkflowDefinitionError(
                node.name, f"member {number} must be a signature where they are streamed, got {member!r:.200}"
            )
        return self.pack(node, member, self.task_id(node, number))

    def pack(self, node: Node, call: Signature[Any], task_id: str) -> bytes:
        """Return what enqueues a step: its message in pieces, its id, queue and start."""
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
        positional = () if call.is_immutable else tuple(Later(each) for each in node.positional)
        named = {name: Later(each) for name, each in node.named.items()}
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
        """Give each step and group its own span `send`, which its run continues."""
        tracing, graph = self._preparer.tracing, self.graph
        if not tracing.is_active or len(graph.nodes) == 1:
            return
        for number, node in enumerate(graph.nodes):
            queue = self.home if node.call is None else self._preparer.plan(node.call.task).queue
            name = node.name if node.call is None else node.call.task.name
            span = tracing.start_producer(queue.name, name, self.task_id(node), context=self.span.context)
            self._carriers[number] = span.carrier()
            span.end()

    def _plan(self, node: Node, task: BaseTask[Any]) -> tuple[Plan, bool, bytes]:
        """Return the plan of a task as a step, whether it is kept after success, and its headers, made once."""
        parents = [self._carriers[each] for each in node.parents if each in self._carriers]
        key = (id(task), node.number if node.number in self._carriers else -1)
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
                is_join = len(parents) > 1 or any(self.graph.nodes[each].is_group for each in node.parents)
                sends = [each.headers.get("traceparent", "") for each in parents] if is_join else []
                own[LINKS] = ",".join([NO_RUN, *sends][:LINKS_MAX])  # the script that starts the step knows the run
            carrier = self._carriers.get(node.number) or self.span.carrier()
            headers = self._preparer.headers(plan, carrier, self._carried, own).encoded
            self.queues[plan.queue.name] = plan.queue
            if len(self._plans) >= 1000:  # a stream whose members each have options of their own
                self._plans.clear()
            known = self._plans[key] = (task, plan, is_kept, headers)
        return known[1], known[2], known[3]


def _parts(entries: Iterable[tuple[str, str, Argument]]) -> list[list[tuple[str, str, Argument]]]:
    """Return what stores a workflow in parts of a bounded size."""
    parts: list[list[tuple[str, str, Argument]]] = [[]]
    size = 0
    for entry in entries:
        length = len(entry[2]) if isinstance(entry[2], str | bytes) else 8
        if parts[-1] and (size + length > BATCH_BYTES or len(parts[-1]) >= 5 * BATCH_MAX):
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += length + len(entry[1])
    return parts


class Growing:
    """Members on their way to a group from inside.

    Args:
        outgoing: Writes them down.
        name: Name of the group.
        context: The run that adds them. It counts them, so that its next attempt gives them the same ids.
    """

    def __init__(self, outgoing: Outgoing, name: str, context: TaskContext) -> None:
        self._outgoing = outgoing
        self._node = Node(0, name)
        self._context = context
        self.span = outgoing.span

    def pack(self, call: Any) -> bytes:
        """Return what enqueues a member."""
        if not isinstance(call, Signature):
            raise WorkflowDefinitionError(self._node.name, f"a member must be a signature, got {call!r:.200}")
        number = getattr(self._context, "grown", 0)
        self._context.grown = number + 1
        return self._outgoing.pack(self._node, call, f"{self._context.id}-{number}")

    def operation(self, members: Sequence[bytes]) -> Operation[int | None]:
        """Return what adds members."""
        outgoing = self._outgoing
        return grow_group(outgoing.home, outgoing.id, self._node.name, self._context.id, members)

    def read(self, added: int | None) -> int:
        """Return how many were added, or raise that none could be."""
        if added is None:
            outgoing, task_id = self._outgoing, self._context.id
            raise WorkflowError(
                outgoing.home.name, outgoing.id, f"the group {self._node.name!r} or the member {task_id!r} has ended"
            )
        return added


def _failures(node: Node) -> Iterator[int]:
    for what in (*node.positional, *node.named.values()):
        if isinstance(what, Failure):
            yield from what.nodes


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
        WorkflowDefinitionError: It has one.
    """
    refused = {
        "task_id": (options.task_id is not None, "the id of a step is made from that of its workflow and its name"),
        "unique_for": (options.unique_s > 0 or options.unique is not None, "a step is not enqueued by itself"),
        "aggregate": (options.aggregate is not None, "a step is not combined with other tasks"),
    }
    for name, (is_set, why) in refused.items():
        if is_set:
            raise WorkflowDefinitionError(node.name, f"cannot have {name}: {why}")


def _stronger(one: Confirmation | None, other: Confirmation) -> Confirmation:
    if one is None:
        return other
    return Confirmation(max(one.replicas, other.replicas), one.fsynced or other.fsynced)


def home_of(graph: Graph, keys: Any) -> QueueKeys:
    """Return the home queue of a workflow: what was said, or the queue of its first step whose code is here.

    A queue of remote tasks may be served by workers that carry nothing.
    """
    name = graph.about.queue
    if name is None:
        calls = [call for node in graph.nodes if (call := first_call(node)) is not None]
        here = [call for call in calls if not isinstance(call.task, RemoteTask)]
        for call in (here or calls)[:1]:
            name = call.task.options.queue
    queue: QueueKeys = keys.queue(name or "default")
    return queue


def first_call(node: Node) -> Signature[Any] | None:
    """Return what a node runs, of a group the first member as far as that is known."""
    members = node.members
    first = members.first if isinstance(members, Again) else members[:1] if isinstance(members, Sequence) else ()
    call = node.call or next(iter(first), None)
    return call if isinstance(call, Signature) else None
