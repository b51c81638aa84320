"""Arrange the steps of a workflow as lines of a tree, for the terminal.

A step is below the step that it depends on. A single dependent step has the same depth; several dependent steps are
branches. A step that depends on several steps is below the last step that all of these depend on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from taskq_core.workflow import StepInfo, WorkflowGraph

_TOP = ""
"""Name of the root of the tree. No step has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """A line of the tree.

    Attributes:
        step: The step.
        rails: For each level of depth, from the outermost, whether this branch has another branch below it.
        is_branch: Whether the step is the first step of a branch.
    """

    step: StepInfo
    rails: tuple[bool, ...]
    is_branch: bool


def step_tree(graph: WorkflowGraph) -> tuple[StepLine, ...]:
    """Return the steps of a workflow as lines of a tree. Each step appears once."""
    above: dict[str, str] = {}
    depth: dict[str, int] = {_TOP: 0}
    below: dict[str, list[StepInfo]] = {_TOP: []}
    for step in graph.steps:
        parent = _meeting((name for name in step.after if name in depth), above, depth)
        above[step.name], depth[step.name] = parent, depth[parent] + 1
        below[parent].append(step)
        below[step.name] = []
    lines = []
    left = _branches(below[_TOP], ())
    while left:
        line = left.pop()
        lines.append(line)
        left += _branches(below[line.step.name], line.rails)
    return tuple(lines)


def _branches(steps: list[StepInfo], rails: tuple[bool, ...]) -> list[StepLine]:
    """Return the lines of the dependent steps of a step, in reverse order."""
    if len(steps) == 1:
        return [StepLine(step=steps[0], rails=rails, is_branch=False)]
    return [
        StepLine(step=step, rails=(*rails, number > 0), is_branch=True) for number, step in enumerate(reversed(steps))
    ]


def _meeting(names: Iterable[str], above: Mapping[str, str], depth: Mapping[str, int]) -> str:
    """Return the last step that all of these steps depend on, or the step itself if there is one."""
    found: str | None = None
    for name in names:
        if found is None:
            found = name
            continue
        other = name
        while found != other:
            if depth[found] >= depth[other]:
                found = above[found]
            else:
                other = above[other]
    return _TOP if found is None else found
