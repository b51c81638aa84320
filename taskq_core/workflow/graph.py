"""From what was put together to nodes and edges: checked whole, before anything is sent."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskq_core.codec import Later
from taskq_core.errors import WorkflowDefinitionError
from taskq_core.tasks.canvas import Chain, Group, Part, PartialSignature, Signature, Single, check_takes
from taskq_core.tasks.named import NamedStep, Workflow, given_by
from taskq_core.tasks.step_options import About, Callbacks, OnFailure, check_call

NODES_MAX = 10_000
"""Most nodes of a workflow: steps, and groups of any number of signatures."""

STOP, CONTINUE, ALWAYS, FAILED = "s", "c", "z", "f"
"""When a child runs: after success, also after a failure, the same without excusing it, after a failure only."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a node, or of several as a list or by name: what a `Later` stands for."""

    tree: Any
    """A node, or lists of them as groups nest, or the last steps of a `Workflow` by name."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The first failure among nodes, in their order: what a `Later` stands for."""

    nodes: tuple[int, ...]


@dataclass(slots=True)
class Node:
    """A step, or a group of steps.

    Attributes:
        number: Its place in the workflow.
        name: Its name.
        call: What runs; None for a group.
        members: What runs in a group: signatures, read once.
        positional: What its call, or each member, gets before its own arguments.
        named: What its call gets by name.
        parents: When it runs after which node: one of the letters above by number.
        is_callback: True for what runs after a part: it is no part itself.
        is_excused: True if its failure is no failure of the workflow.
    """

    number: int
    name: str
    call: Signature[Any] | None = None
    members: Iterable[Any] | None = None
    positional: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    parents: dict[int, str] = field(default_factory=dict)
    is_callback: bool = False
    is_excused: bool = False

    @property
    def is_group(self) -> bool:
        """True for a group of signatures."""
        return self.call is None


NAMED_STEPS = 3
"""Maximum number of step names in the name of a workflow without a given name."""
NAME_CHARS = 200
"""Maximum length of such a name."""


@dataclass(slots=True)
class Graph:
    """A workflow as nodes and edges.

    Attributes:
        about: What is said of it as a whole.
        nodes: Its nodes by number.
        exits: The nodes whose results are the workflow's: a number, nested lists of them, or a dict by name.
        result_type: Type of the workflow's result.
    """

    about: About
    nodes: list[Node] = field(default_factory=list)
    exits: Any = None
    result_type: Any = Any

    @property
    def name(self) -> str:
        """Its given name, or the names of its first steps, such as `fetch → resize → notify`."""
        if self.about.name:
            return self.about.name
        steps = [node.name for node in self.nodes if not node.is_callback]
        more = len(steps) - NAMED_STEPS
        text = " → ".join(steps[:NAMED_STEPS]) + (f" → … ({more} more)" if more > 0 else "")
        return text if len(text) <= NAME_CHARS else f"{text[: NAME_CHARS - 1]}…"

    def children(self) -> list[list[tuple[int, str]]]:
        """Return for each node those that wait for it, with when they run."""
        found: list[list[tuple[int, str]]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for parent, letter in node.parents.items():
                found[parent].append((node.number, letter))
        return found


def leaves(tree: Any) -> list[int]:
    """Return the nodes of a tree, in order."""
    if isinstance(tree, int):
        return [tree]
    return [each for branch in (tree.values() if isinstance(tree, dict) else tree) for each in leaves(branch)]


def build(workflow: Part) -> Graph:
    """Return the nodes and edges of a workflow.

    Raises:
        WorkflowDefinitionError: It cannot be: unknown steps, cycles, too many nodes, a name twice, arguments that do
            not fit. The step is named.
    """
    builder = _Builder(About() if isinstance(workflow, PartialSignature) else workflow.about)
    graph = builder.graph
    if isinstance(workflow, Workflow):
        builder.add_workflow(workflow)
    else:
        graph.exits = builder.add(workflow, None, {}, OnFailure.STOP)
        if isinstance(graph.exits, int):
            call = graph.nodes[graph.exits].call
            graph.result_type = list[Any] if call is None else call.task.result_type
        else:
            graph.result_type = list[Any]
    for node in graph.nodes:
        for parent, letter in node.parents.items():
            if letter == CONTINUE:
                graph.nodes[parent].is_excused = True
    return graph


class _Builder:
    def __init__(self, about: About) -> None:
        self.graph = Graph(about)
        self._names: set[str] = set()
        self._on_failure: dict[int, OnFailure] = {}
        self._is_callback = False

    # --- parts --------------------------------------------------------------------------------------------------------

    def add(self, part: Any, value: Any, parents: dict[int, str], on_failure: OnFailure) -> Any:
        """Add a part that runs after `parents` and gets `value`, and return the tree of its last nodes."""
        first = len(self.graph.nodes)
        if isinstance(part, Signature):
            return self._add_call(part, None, None, value, parents, on_failure)
        if isinstance(part, Single):
            how = OnFailure.CONTINUE if OnFailure.CONTINUE in (on_failure, part.on_failure) else OnFailure.STOP
            tree = self._add_call(part.call, part.name, part.into, value, parents, how)
        elif isinstance(part, Chain):
            tree = self._add_chain(part, value, parents, on_failure)
        elif isinstance(part, Group):
            tree = self._add_group(part, value, parents, on_failure)
        else:
            raise WorkflowDefinitionError("", f"cannot be part of another workflow: {part!r:.200}")
        self._add_callbacks(part.callbacks, tree, range(first, len(self.graph.nodes)))
        return tree

    def _add_call(
        self,
        call: Signature[Any],
        name: str | None,
        into: str | None,
        value: Any,
        parents: dict[int, str],
        on_failure: OnFailure,
    ) -> int:
        node = self._new(name, call.task.name, parents, on_failure)
        node.call = call
        if value is not None and not call.is_immutable:
            if into is None:
                node.positional = (value,)
            else:
                node.named = {into: value}
        positional = tuple(Later(each) for each in node.positional)
        check_call(node.name, call, positional, {each: Later(what) for each, what in node.named.items()})
        return node.number

    def _add_chain(self, part: Chain, value: Any, parents: dict[int, str], on_failure: OnFailure) -> Any:
        how = OnFailure.CONTINUE if OnFailure.CONTINUE in (on_failure, part.on_failure) else OnFailure.STOP
        tree: Any = None
        for each in part.parts:
            if tree is not None:
                value, parents = Result(tree), self._edges(tree)
            tree = self.add(each, value, parents, how)
        return tree

    def _add_group(self, part: Group, value: Any, parents: dict[int, str], on_failure: OnFailure) -> Any:
        how = OnFailure.CONTINUE if OnFailure.CONTINUE in (on_failure, part.on_failure) else OnFailure.STOP
        members = part.members
        if isinstance(members, Sequence) and not all(isinstance(each, Signature) for each in members):
            return [self.add(each, value, parents, how) for each in members]
        if value is not None and isinstance(members, Sequence):
            for each in members:
                check_takes(each, 1)
        first = members[0] if isinstance(members, Sequence) and members else None
        node = self._new(part.name, "group" if first is None else f"{first.task.name}-group", parents, how)
        node.members = members
        node.positional = () if value is None else (value,)
        return node.number

    def _add_callbacks(self, callbacks: Callbacks, tree: Any, numbers: range) -> None:
        if callbacks == Callbacks():
            return
        parts = [number for number in numbers if not self.graph.nodes[number].is_callback]
        outer, self._is_callback = self._is_callback, True
        try:
            for call in callbacks.success:
                self.add(call, Result(tree), dict.fromkeys(leaves(tree), STOP), OnFailure.STOP)
            for call in callbacks.error:
                self.add(call, Failure(tuple(parts)), dict.fromkeys(parts, FAILED), OnFailure.STOP)
            for call in callbacks.complete:
                value = Result(tree) if _takes_one(call) else None
                self.add(call, value, dict.fromkeys(leaves(tree), ALWAYS), OnFailure.STOP)
        finally:
            self._is_callback = outer

    def _edges(self, tree: Any) -> dict[int, str]:
        return {number: CONTINUE if self._on_failure[number] is OnFailure.CONTINUE else STOP for number in leaves(tree)}

    def _new(self, name: str | None, source: str, parents: dict[int, str], on_failure: OnFailure) -> Node:
        if name is None:
            name = self._name_from(source)
        elif name in self._names:
            raise WorkflowDefinitionError(name, "there is a step with this name already")
        self._names.add(name)
        number = len(self.graph.nodes)
        if number >= NODES_MAX:
            raise WorkflowDefinitionError(
                name,
                f"is one too many: a workflow has at most {NODES_MAX} steps, and groups of any number of signatures",
            )
        node = Node(number, name, parents=dict(parents), is_callback=self._is_callback)
        self.graph.nodes.append(node)
        self._on_failure[number] = on_failure
        return node

    def _name_from(self, source: str) -> str:
        last = re.split(r"[.:/]", source)[-1] or source
        base = re.sub(r"[^A-Za-z0-9_-]", "_", last)[:60].lstrip("-") or "step"
        name, count = base, 1
        while name in self._names:
            count += 1
            name = f"{base}-{count}"
        return name

    # --- steps by name ------------------------------------------------------------------------------------------------

    def add_workflow(self, workflow: Workflow) -> None:
        """Add the steps of a workflow by name."""
        if not workflow.steps:
            raise WorkflowDefinitionError("", "has no steps")
        graph = self.graph
        for step in workflow.steps.values():
            for edge in step.after:
                if edge.step not in workflow.steps:
                    known = ", ".join(repr(each) for each in list(workflow.steps)[:20])
                    raise WorkflowDefinitionError(step.name, f"comes after unknown step {edge.step!r}; known: {known}")
        numbers: dict[str, int] = {}
        for step in _in_order(workflow.steps):
            by_position, by_name = given_by(step.after, lambda edge: Result(numbers[edge.step]))
            parents = {}
            for edge in step.after:
                how = edge.on_failure or workflow.steps[edge.step].part.on_failure
                parents[numbers[edge.step]] = CONTINUE if how is OnFailure.CONTINUE else STOP
            node = self._new(step.name, step.name, parents, step.part.on_failure)
            numbers[step.name] = node.number
            call = node.call = step.part.call
            if not call.is_immutable:
                node.positional, node.named = by_position, by_name
        parents_of_any = {number for node in graph.nodes for number in node.parents}
        ends = {node.name: node.number for node in graph.nodes if node.number not in parents_of_any}
        graph.exits = next(iter(ends.values())) if len(ends) == 1 else ends
        if isinstance(graph.exits, int):
            call_of_end = graph.nodes[graph.exits].call
            graph.result_type = Any if call_of_end is None else call_of_end.task.result_type
        else:
            graph.result_type = dict[str, Any]
        for step in workflow.steps.values():
            number = numbers[step.name]
            self._add_callbacks(step.part.callbacks, number, range(number, number + 1))
        parts = range(len(numbers))
        self._add_callbacks(workflow.callbacks, graph.exits, parts)


def _takes_one(part: Any) -> bool:
    try:
        check_takes(part, 1)
    except WorkflowDefinitionError:
        return False
    return True


def _in_order(steps: dict[str, NamedStep]) -> list[NamedStep]:
    """Return steps, each behind those it comes after.

    Raises:
        WorkflowDefinitionError: They go in a circle.
    """
    ordered: list[NamedStep] = []
    done: set[str] = set()
    for start in steps:
        path: list[tuple[str, int]] = [(start, 0)]
        on_path = {start}
        while path:
            name, at = path.pop()
            if name in done:
                on_path.discard(name)
                continue
            edges = steps[name].after
            if at == len(edges):
                ordered.append(steps[name])
                done.add(name)
                on_path.discard(name)
                continue
            path.append((name, at + 1))
            before = edges[at].step
            if before in on_path:
                circle = [each for each, _ in path]
                circle = [*circle[circle.index(before) :], before]
                shown = " after ".join(repr(each) for each in circle[:10])
                raise WorkflowDefinitionError(name, f"goes in a circle: {shown}")
            if before not in done:
                path.append((before, 0))
                on_path.add(before)
    return ordered
