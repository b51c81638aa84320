"""Draw a workflow as SVG for the pages of the web dashboard and the admin. Their style sheets set the colors by class.

All text in the SVG is escaped, and it contains no links.
"""

from collections.abc import Callable
from html import escape

from taskq_core.handles.workflow_records import StepInfo
from taskq_core.views.graphs import BOX_HEIGHT, BOX_WIDTH, GraphDrawing, StepBox

_TEXT_X, _NAME_Y, _WORDS_Y = 14, 20, 37
_MARK_WIDTH, _MARK_GAP = 5, 6


def graph_svg(
    drawing: GraphDrawing, *, about: str, words: Callable[[StepInfo], str], prefix: str = "", shown: str = ""
) -> str:
    """Return a drawing as an SVG element.

    Its classes are `flow`; `edge` and `edge-success`, `edge-end`, `edge-failure`; `box`, `box-callback` and
    `box-shown`; `step-<state>` for the mark in a box; `small` for the text of the step's state.

    Args:
        drawing: The drawing.
        about: Description for screen readers.
        words: Returns the text for the state of a step.
        prefix: Prefix of all class names.
        shown: Name of the highlighted step, or "".
    """
    size = f'width="{drawing.width}" height="{drawing.height}" viewBox="0 0 {drawing.width} {drawing.height}"'
    parts = [f'<svg class="{prefix}flow" {size} role="img" aria-label="{escape(about)}">']
    parts += [f'<path class="{prefix}edge {prefix}edge-{each.when}" d="{each.path}"/>' for each in drawing.edges]
    parts += [_box(box, words(box.step), prefix, is_shown=box.step.name == shown) for box in drawing.boxes]
    parts.append("</svg>")
    return "\n".join(parts)


def _box(box: StepBox, words: str, prefix: str, *, is_shown: bool) -> str:
    step = box.step
    classes = f"{prefix}box"
    if step.is_callback:
        classes += f" {prefix}box-callback"
    if is_shown:
        classes += f" {prefix}box-shown"
    title = f"{step.name}: {words}" + (f" ({step.task})" if step.task else "")
    x = box.x + _TEXT_X
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect class="{classes}" x="{box.x}" y="{box.y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<rect class="{prefix}step-{step.state}" x="{box.x + 1}" y="{box.y + _MARK_GAP}" '
        f'width="{_MARK_WIDTH}" height="{BOX_HEIGHT - 2 * _MARK_GAP}" rx="2"/>'
        f'<text x="{x}" y="{box.y + _NAME_Y}">{escape(box.label)}</text>'
        f'<text class="{prefix}small" x="{x}" y="{box.y + _WORDS_Y}">{escape(words)}</text></g>'
    )
