"""A workflow as a drawing: steps in layers from left to right, each right of all it comes after.

All is told in units of a drawing, so that a page has only to write it as SVG: boxes, and paths between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from taskq_core.workflow.records import StepInfo, WorkflowGraph

STEPS_MAX = 300
"""Most steps that are drawn; a group is one."""
EDGES_MAX = 3_000
"""Most edges that are drawn."""
BOX_WIDTH, BOX_HEIGHT = 180, 46
_GAP_X, _GAP_Y, _EDGE = 56, 16, 4
_LABEL = 22
"""Characters of a name that a box shows."""
_SWEEPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBox:
    """A step in a drawing.

    Attributes:
        step: The step.
        layer: Which layer it stands in, from 0: 0 comes after nothing, others after one of the layer before.
        row: Which place it has in its layer, from 0.
        x: Its left edge.
        y: Its upper edge.
        label: Its name, cut to what a box shows.
    """

    step: StepInfo
    layer: int
    row: int
    x: int
    y: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEdge:
    """What leads from a step to one that comes after it.

    Attributes:
        source: Name of the first.
        target: Name of the other.
        when: When the other runs: "success", "failure", or "end" for either.
        path: The line, as the `d` of an SVG path.
    """

    source: str
    target: str
    when: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDrawing:
    """The drawing of a workflow.

    Attributes:
        boxes: Its steps, in their order.
        edges: What leads from one to another.
        width: Width of the drawing.
        height: Its height.
    """

    boxes: Sequence[StepBox]
    edges: Sequence[StepEdge]
    width: int
    height: int


def drawing_of(graph: WorkflowGraph) -> GraphDrawing | None:
    """Return a drawing of a workflow; None if it has more than `STEPS_MAX` steps or `EDGES_MAX` edges."""
    steps = graph.steps
    if len(steps) > STEPS_MAX or sum(len(step.after) for step in steps) > EDGES_MAX:
        return None
    layers = _layers(steps)
    most = max(map(len, layers), default=0)
    boxes: dict[str, StepBox] = {}
    for number, layer in enumerate(layers):
        above = (most - len(layer)) * (BOX_HEIGHT + _GAP_Y) // 2  # small layers stand in the middle
        for row, step in enumerate(layer):
            boxes[step.name] = StepBox(
                step=step,
                layer=number,
                row=row,
                x=_EDGE + number * (BOX_WIDTH + _GAP_X),
                y=_EDGE + above + row * (BOX_HEIGHT + _GAP_Y),
                label=step.name if len(step.name) <= _LABEL else step.name[: _LABEL - 1] + "…",
            )
    edges = [
        StepEdge(source=name, target=step.name, when=when, path=_path(boxes[name], boxes[step.name]))
        for step in steps
        for name, when in step.after.items()
    ]
    return GraphDrawing(
        boxes=[boxes[step.name] for step in steps],
        edges=edges,
        width=2 * _EDGE + max(0, len(layers) * (BOX_WIDTH + _GAP_X) - _GAP_X),
        height=2 * _EDGE + max(0, most * (BOX_HEIGHT + _GAP_Y) - _GAP_Y),
    )


def _layers(steps: Sequence[StepInfo]) -> list[list[StepInfo]]:
    """Return the steps by layer, each layer in an order in which few lines cross."""
    depth: dict[str, int] = {}
    layers: list[list[StepInfo]] = []
    after: dict[str, list[str]] = {step.name: [] for step in steps}
    for step in steps:
        depth[step.name] = 1 + max((depth[name] for name in step.after), default=-1)
        if depth[step.name] == len(layers):
            layers.append([])
        layers[depth[step.name]].append(step)
        for name in step.after:
            after[name].append(step.name)
    for sweep in range(_SWEEPS):
        goes_down = sweep % 2 == 0
        place = {step.name: (row + 0.5) / len(layer) for layer in layers for row, step in enumerate(layer)}
        for layer in layers if goes_down else reversed(layers):
            mean = {}
            for step in layer:
                near = list(step.after) if goes_down else after[step.name]
                mean[step.name] = sum(place[name] for name in near) / len(near) if near else place[step.name]
            layer.sort(key=lambda step: mean[step.name])
            place |= {step.name: (row + 0.5) / len(layer) for row, step in enumerate(layer)}
    return layers


def _path(source: StepBox, target: StepBox) -> str:
    x1, y1 = source.x + BOX_WIDTH, source.y + BOX_HEIGHT // 2
    x2, y2 = target.x, target.y + BOX_HEIGHT // 2
    bend = min((x2 - x1) // 2, 2 * _GAP_X)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
