"""Compute the layout of a workflow: layers of steps from left to right.

A step is placed to the right of all steps on which it depends.

Positions are in units of the drawing, so that a page can write boxes and paths as SVG without further computation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from taskq_core.handles.workflow_records import StepInfo, WorkflowGraph

STEPS_MAX = 300
"""Maximum number of steps in a drawing. A group counts as one step."""
EDGES_MAX = 3_000
"""Maximum number of edges in a drawing."""
SPOTS_MAX = 5_000
"""Maximum number of step boxes and lanes (see `_Spot`) in a drawing."""
BOX_WIDTH, BOX_HEIGHT = 180, 46
_GAP_X, _GAP_Y, _EDGE = 56, 16, 4
_COLUMN = BOX_WIDTH + _GAP_X
_LANE = 6
"""Height of a lane: the space that a layer reserves for edges that pass it."""
_LABEL = 22
"""Maximum number of characters of a name in a box."""
_SWEEPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBox:
    """The box of a step in a drawing.

    Attributes:
        step: The step.
        layer: Number of its layer, from 0. A step is one layer after the last step that it depends on.
        row: Position of the box in the layer, from 0.
        x: Left edge of the box.
        y: Upper edge of the box.
        label: Name of the step, shortened to fit the box.
    """

    step: StepInfo
    layer: int
    row: int
    x: int
    y: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEdge:
    """An edge from a step to a dependent step.

    Attributes:
        source: Name of the first step.
        target: Name of the dependent step.
        when: Outcome after which the dependent step runs: "success", "failure", or "end" for either.
        path: The line of the edge as the `d` of an SVG path. It may end where it joins another line to the same step.
    """

    source: str
    target: str
    when: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDrawing:
    """The drawing of a workflow.

    Attributes:
        boxes: The boxes of the steps, in the order of the steps.
        edges: The edges between steps.
        width: Width of the drawing.
        height: Height of the drawing.
    """

    boxes: Sequence[StepBox]
    edges: Sequence[StepEdge]
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spot:
    """A place in a layer of the drawing: the box of a step, or a lane for the edges to a step in a later layer.

    Attributes:
        step: The step. None: a lane.
        target: Name of the step to which a lane leads, "" for a step.
        near: Keys of the places in the previous layer from which a line leads to this place.
    """

    step: StepInfo | None
    target: str
    near: list[str]

    @property
    def height(self) -> int:
        """Height of the place, in units of the drawing."""
        return _LANE if self.step is None else BOX_HEIGHT


def drawing_of(graph: WorkflowGraph) -> GraphDrawing | None:
    """Return the drawing of a workflow.

    Return None if it has more than `STEPS_MAX` steps, `EDGES_MAX` edges, or `SPOTS_MAX` boxes and lanes.
    """
    steps = graph.steps
    if len(steps) > STEPS_MAX or sum(len(step.after) for step in steps) > EDGES_MAX:
        return None
    depth = _depths(steps)
    layers = _spots(steps, depth)
    if sum(map(len, layers)) > SPOTS_MAX:
        return None
    _untangle(layers)
    heights = [sum(spot.height + _GAP_Y for spot in layer.values()) - _GAP_Y for layer in layers]
    most = max(heights, default=0)
    boxes: dict[str, StepBox] = {}
    lanes: dict[tuple[int, str], int] = {}
    for number, layer in enumerate(layers):
        y, row = _EDGE + (most - heights[number]) // 2, 0  # center each layer vertically
        for spot in layer.values():
            if spot.step is None:
                lanes[number, spot.target] = y + _LANE // 2
            else:
                boxes[spot.step.name] = _box(spot.step, number, row, y)
                row += 1
            y += spot.height + _GAP_Y
    edges = []
    for step in steps:
        drawn: set[tuple[int, str]] = set()
        for name in sorted(step.after, key=depth.__getitem__):  # longest edge first: shorter edges join it
            when = step.after[name]
            path = _path(boxes[name], boxes[step.name], when, lanes, drawn)
            edges.append(StepEdge(source=name, target=step.name, when=when, path=path))
    return GraphDrawing(
        boxes=[boxes[step.name] for step in steps],
        edges=edges,
        width=2 * _EDGE + max(0, len(layers) * _COLUMN - _GAP_X),
        height=2 * _EDGE + most,
    )


def _depths(steps: Sequence[StepInfo]) -> dict[str, int]:
    """Return the layer of each step."""
    depth: dict[str, int] = {}
    for step in steps:
        depth[step.name] = 1 + max((depth[name] for name in step.after), default=-1)
    return depth


def _spots(steps: Sequence[StepInfo], depth: dict[str, int]) -> list[dict[str, _Spot]]:
    """Return the boxes and lanes of each layer, by key. All edges to the same step share one lane in a layer."""
    layers: list[dict[str, _Spot]] = [{} for _ in range(max(depth.values(), default=-1) + 1)]
    for step in steps:
        here = depth[step.name]
        near = layers[here].setdefault(f"s{step.name}", _Spot(step=step, target="", near=[])).near
        for name in step.after:
            before = f"s{name}"
            for passed in range(depth[name] + 1, here):
                lane = layers[passed].setdefault(f"l{step.name}", _Spot(step=None, target=step.name, near=[]))
                if before not in lane.near:
                    lane.near.append(before)
                before = f"l{step.name}"
            if before not in near:
                near.append(before)
    return layers


def _untangle(layers: list[dict[str, _Spot]]) -> None:
    """Sort the places of each layer so that few lines cross, by the mean position of their neighbors."""
    following: list[dict[str, list[str]]] = [{} for _ in layers]
    for number, layer in enumerate(layers):
        for key, spot in layer.items():
            for name in spot.near:
                following[number - 1].setdefault(name, []).append(key)
    for sweep in range(_SWEEPS):
        goes_right = sweep % 2 == 0
        beside: dict[str, float] = {}
        for number in range(len(layers)) if goes_right else reversed(range(len(layers))):
            layer = layers[number]
            mean = {}
            for row, (key, spot) in enumerate(layer.items()):
                near = spot.near if goes_right else following[number].get(key, [])
                mean[key] = sum(beside[name] for name in near) / len(near) if near else (row + 0.5) / len(layer)
            order = sorted(layer, key=mean.__getitem__)
            layers[number] = {key: layer[key] for key in order}
            beside = {key: (row + 0.5) / len(order) for row, key in enumerate(order)}


def _box(step: StepInfo, layer: int, row: int, y: int) -> StepBox:
    label = step.name if len(step.name) <= _LABEL else step.name[: _LABEL - 1] + "…"
    return StepBox(step=step, layer=layer, row=row, x=_EDGE + layer * _COLUMN, y=y, label=label)


def _path(
    source: StepBox, target: StepBox, when: str, lanes: dict[tuple[int, str], int], drawn: set[tuple[int, str]]
) -> str:
    """Return the SVG path of an edge.

    If an edge to the same step is already in `drawn`, the path ends where it joins that edge.
    """
    x, y = source.x + BOX_WIDTH, source.y + BOX_HEIGHT // 2
    path = f"M{x} {y}"
    for layer in range(source.layer + 1, target.layer):
        left, lane = _EDGE + layer * _COLUMN, lanes[layer, target.step.name]
        path += _bow(x, y, left, lane)
        if (layer, when) in drawn:
            return path
        drawn.add((layer, when))
        path += f"H{left + BOX_WIDTH}"
        x, y = left + BOX_WIDTH, lane
    end = target.y + BOX_HEIGHT // 2
    head = f"M{target.x - 6} {end - 4}L{target.x} {end}L{target.x - 6} {end + 4}"
    return path + _bow(x, y, target.x, end) + head


def _bow(x1: int, y1: int, x2: int, y2: int) -> str:
    bend = (x2 - x1) // 2
    return f"C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
