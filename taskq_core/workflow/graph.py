"""Turn a workflow into nodes and edges, and check it before anything is sent.

All workflows (chains, groups, chords and `Workflow` objects) then have the same form: named steps, the predecessors of
each step, and the results that it receives.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Any

from msgspec import Struct, field

from taskq_core.codec import Later
from taskq_core.errors import WorkflowDefinitionError
from taskq_core.handles.workflow_plans import ALWAYS, CONTINUE, FAILED, STOP, leaves
from taskq_core.tasks.canvas import Canvas, Chain, Group, Signature, Single, Whole, check_takes_result
from taskq_core.tasks.named import Workflow, edge_arguments
from taskq_core.tasks.step_options import Callbacks, OnFailure, WorkflowDetails, check_call

NODES_MAX = 10_000
"""Maximum number of nodes of a workflow. A group is one node, whatever its number of members."""

NAMED_STEPS = 3
"""Maximum number of step names in the generated name of a workflow."""
NAME_CHARS = 200
"""Maximum length of a generated workflow name, in characters."""


class Result(Struct, frozen=True):
    """Placeholder for an argument: the result of a node, or several results as list or dict, replaces it at the call.

    Attributes:
        tree: A node number, nested lists of numbers for groups, or the last steps of a `Workflow` by name.
    """

    tree: Any


class Failure(Struct, frozen=True):
    """Placeholder for an argument: the failure of the first failed node among `nodes` replaces it at the call."""

    nodes: tuple[int, ...]


class Before(Struct, frozen=True):
    """The predecessors of a node, and the results that the node receives from them as arguments.

    Attributes:
        parents: The condition under which the node runs after each predecessor, by number: `STOP`, `CONTINUE`,
            `ALWAYS` or `FAILED`.
        positional: Results that its call, or each member of a group, receives before its own arguments.
        named: Results that its call receives by parameter name.
    """

    parents: dict[int, str] = field(default_factory=dict)
    positional: tuple[Result | Failure, ...] = ()
    named: dict[str, Result | Failure] = field(default_factory=dict)


class Node(Struct, eq=False):
    """A node of a workflow graph: one step, or a group of steps.

    Attributes:
        number: Index of the node in the workflow.
        name: Name of the node.
        before: Predecessors of the node.
        call: The call of a step; None for a group.
        members: The signatures of a group. They may be iterated only once.
        is_callback: Whether it is a callback of a part of the workflow.
        is_excused: Whether the workflow can succeed although the node failed.
        continues: Whether the next node in a chain also runs after a failure of this node.
    """

    number: int
    name: str
    before: Before = field(default_factory=Before)
    call: Signature[Any] | None = None
    members: Iterable[Any] = ()
    is_callback: bool = False
    is_excused: bool = False
    continues: bool = False

    @property
    def is_group(self) -> bool:
        """True for a group of signatures."""
        return self.call is None


class Graph(Struct):
    """A workflow as nodes and edges.

    Attributes:
        details: Name, home queue and lifetime of the workflow.
        nodes: Nodes of the workflow by number.
        exits: The nodes whose results form the workflow's result: a number, nested lists of numbers, or a dict by name.
        result_type: Type of the workflow's result.
    """

    details: WorkflowDetails
    nodes: list[Node] = field(default_factory=list)
    exits: Any = None
    result_type: Any = Any

    @property
    def name(self) -> str:
        """The given name, or the names of the first steps, such as `fetch → resize → notify`."""
        if self.details.name:
            return self.details.name
        steps = [node.name for node in self.nodes if not node.is_callback]
        more = len(steps) - NAMED_STEPS
        text = " → ".join(steps[:NAMED_STEPS]) + (f" → … ({more} more)" if more > 0 else "")
        return text if len(text) <= NAME_CHARS else f"{text[: NAME_CHARS - 1]}…"

    def children(self) -> list[list[tuple[int, str]]]:
        """Return for each node the nodes that wait for it, each with the condition under which it runs."""
        found: list[list[tuple[int, str]]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for parent, letter in node.before.parents.items():
                found[parent].append((node.number, letter))
        return found

    def type_of(self, number: int) -> Any:
        """Return the type of a node's result."""
        call = self.nodes[number].call
        return list[Any] if call is None else call.task.result_type


def build(workflow: Whole) -> Graph:
    """Convert a workflow into a graph of nodes and edges, and check it.

    Raises:
        WorkflowDefinitionError: The workflow has unknown steps, cycles, too many nodes, a name twice, or invalid
            arguments. The error names the step.
    """
    if isinstance(workflow, Signature):
        workflow = Single(workflow)
    assert isinstance(workflow, Canvas)
    builder = _Builder(workflow.details)
    graph = builder.graph
    if isinstance(workflow, Workflow):
        builder.add_workflow(workflow)
    else:
        graph.exits = builder.add(workflow, Before(), continues=False)
    if isinstance(graph.exits, int):
        graph.result_type = graph.type_of(graph.exits)
    else:
        graph.result_type = dict[str, Any] if isinstance(graph.exits, dict) else list[Any]
    for node in graph.nodes:
        for parent, letter in node.before.parents.items():
            if letter == CONTINUE:
                graph.nodes[parent].is_excused = True
    return graph


class _Builder:
    def __init__(self, details: WorkflowDetails) -> None:
        self.graph = Graph(details)
        self._names: set[str] = set()
        self._is_callback = False

    def add(self, part: Any, before: Before, *, continues: bool) -> Any:
        """Add a part, and return the tree of its last nodes.

        Args:
            part: A step, chain or group.
            before: The predecessors of the part.
            continues: Whether the chains and groups that contain the part continue after a failure.
        """
        if isinstance(part, Signature):
            part = Single(part)
        if not isinstance(part, Single | Chain | Group):
            raise WorkflowDefinitionError("", f"a part must be a signature, chain or group, got {part!r:.200}")
        first = len(self.graph.nodes)
        continues = continues or part.on_failure is OnFailure.CONTINUE
        if isinstance(part, Single):
            tree: Any = self._add_step(part, before, continues=continues)
        elif isinstance(part, Chain):
            tree = None
            for each in part.parts:
                if tree is not None:
                    before = Before(self._edges(tree), (Result(tree),))
                tree = self.add(each, before, continues=continues)
        else:
            tree = self._add_group(part, before, continues=continues)
        self._add_callbacks(part.callbacks, tree, range(first, len(self.graph.nodes)))
        return tree

    def _add_step(self, step: Single, before: Before, *, continues: bool) -> int:
        if step.call.is_immutable:
            before = Before(before.parents)
        elif step.into is not None and before.positional:
            before = Before(before.parents, named={step.into: before.positional[0]})
        node = self._new(step.name, step.call.task.name, before, continues=continues)
        node.call = step.call
        positional = tuple(Later(each) for each in before.positional)
        check_call(node.name, step.call, positional, {name: Later(each) for name, each in before.named.items()})
        return node.number

    def _add_group(self, part: Group, before: Before, *, continues: bool) -> Any:
        members = part.members
        if isinstance(members, Sequence) and not all(isinstance(each, Signature) for each in members):
            return [self.add(each, before, continues=continues) for each in members]
        if before.positional:
            check_takes_result(part)
        first = members[0] if isinstance(members, Sequence) and members else None
        source = "group" if first is None else f"{first.task.name}-group"
        node = self._new(part.name, source, before, continues=continues)
        node.members = members
        return node.number

    def _add_callbacks(self, callbacks: Callbacks, tree: Any, numbers: range) -> None:
        if callbacks == Callbacks():
            return
        parts = [number for number in numbers if not self.graph.nodes[number].is_callback]
        ends, result = leaves(tree), Result(tree)
        outer, self._is_callback = self._is_callback, True
        try:
            for call in callbacks.success:
                self.add(call, Before(dict.fromkeys(ends, STOP), (result,)), continues=False)
            for call in callbacks.error:
                self.add(call, Before(dict.fromkeys(parts, FAILED), (Failure(tuple(parts)),)), continues=False)
            for call in callbacks.complete:
                given = (result,) if _takes_result(call) else ()
                self.add(call, Before(dict.fromkeys(ends, ALWAYS), given), continues=False)
        finally:
            self._is_callback = outer

    def _edges(self, tree: Any) -> dict[int, str]:
        return {number: CONTINUE if self.graph.nodes[number].continues else STOP for number in leaves(tree)}

    def _new(self, name: str | None, source: str, before: Before, *, continues: bool) -> Node:
        if name is None:
            name = self._name_from(source)
        elif name in self._names:
            raise WorkflowDefinitionError(name, "the workflow has a step with this name already")
        self._names.add(name)
        number = len(self.graph.nodes)
        if number >= NODES_MAX:
            raise WorkflowDefinitionError(
                name,
                f"the workflow has more than {NODES_MAX} steps; use groups, each of which counts as one step",
            )
        node = Node(number, name, before, is_callback=self._is_callback, continues=continues)
        self.graph.nodes.append(node)
        return node

    def _name_from(self, source: str) -> str:
        last = re.split(r"[.:/]", source)[-1] or source
        base = re.sub(r"[^A-Za-z0-9_-]", "_", last)[:60].lstrip("-") or "step"
        name, count = base, 1
        while name in self._names:
            count += 1
            name = f"{base}-{count}"
        return name

    def add_workflow(self, workflow: Workflow) -> None:
        """Add the steps of a `Workflow`, each after its predecessors."""
        if not workflow.steps:
            raise WorkflowDefinitionError("", "the workflow has no steps")
        nodes = self.graph.nodes
        numbers: dict[str, int] = {}
        for name in _in_order(workflow.steps):
            step = workflow.steps[name]
            parents = {}
            for edge in step.after:
                how = edge.on_failure or workflow.steps[edge.step].on_failure
                parents[numbers[edge.step]] = CONTINUE if how is OnFailure.CONTINUE else STOP
            before = Before(parents, *edge_arguments(step.after, lambda edge: Result(numbers[edge.step])))
            numbers[name] = self._add_step(step, before, continues=False)
        followed = {number for node in nodes for number in node.before.parents}
        ends = {node.name: node.number for node in nodes if node.number not in followed}
        exits = self.graph.exits = next(iter(ends.values())) if len(ends) == 1 else ends
        parts = range(len(nodes))
        for name, step in workflow.steps.items():
            self._add_callbacks(step.callbacks, numbers[name], range(numbers[name], numbers[name] + 1))
        self._add_callbacks(workflow.callbacks, exits, parts)


def _takes_result(part: Any) -> bool:
    try:
        check_takes_result(part)
    except WorkflowDefinitionError:
        return False
    return True


def _in_order(steps: dict[str, Single]) -> Iterator[str]:
    """Yield the names of steps, each after its predecessors.

    Raises:
        WorkflowDefinitionError: A predecessor is unknown, or the steps form a cycle.
    """
    for name, step in steps.items():
        for edge in step.after:
            if edge.step not in steps:
                known = ", ".join(repr(each) for each in list(steps)[:20])
                raise WorkflowDefinitionError(name, f"its predecessor {edge.step!r} is unknown; known steps: {known}")
    sorter = TopologicalSorter({name: [edge.step for edge in step.after] for name, step in steps.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        shown = " after ".join(repr(each) for each in circle[:10])
        raise WorkflowDefinitionError(circle[0], f"the steps form a cycle: {shown}") from None
    places = {name: place for place, name in enumerate(steps)}
    ready: list[tuple[int, str]] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(ready, (places[name], name))  # steps that are ready at the same time keep the order of `steps`
        _, name = heappop(ready)
        sorter.done(name)
        yield name
