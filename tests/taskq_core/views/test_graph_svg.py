"""The drawing of a workflow as SVG."""

from xml.etree import ElementTree as ET

from taskq_core.views import graph_svg
from taskq_core.views.graphs import drawing_of
from taskq_core.workflow import StepInfo
from tests.taskq_core.views.test_workflows import graph

SVG = "{http://www.w3.org/2000/svg}"


def drawn(about: str = "about", words: str = "waits", **options: str) -> ET.Element:
    """Return the drawing of two steps, read as XML."""
    drawing = drawing_of(graph(**{"<a&\"'>": (), "b": ("<a&\"'>",)}))
    assert drawing is not None

    def said(step: StepInfo) -> str:
        return words

    text = graph_svg(drawing, about=about, words=said, **options)
    return ET.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def classes(root: ET.Element) -> list[str]:
    return [each.get("class", "") for each in root.iter() if each.get("class")]


def test_the_drawing_has_boxes_lines_and_labels() -> None:
    root = drawn(about="two steps")

    assert (root.get("role"), root.get("aria-label")) == ("img", "two steps")
    assert classes(root) == ["flow", "edge edge-success", *("box", "step-waiting", "small") * 2]
    assert [each.text for each in root.iter(f"{SVG}text")] == ["<a&\"'>", "waits", "b", "waits"]


def test_classes_can_have_a_prefix_and_one_box_can_be_marked() -> None:
    root = drawn(prefix="own-", shown="b")

    assert classes(root)[:3] == ["own-flow", "own-edge own-edge-success", "own-box"]
    assert classes(root)[5] == "own-box own-box-shown"


def test_all_text_is_escaped() -> None:
    hostile = '</text></title></svg><script>x</script>" onload="x\' {{ 7 }}'
    root = drawn(about=hostile, words=hostile)

    assert root.get("aria-label") == hostile
    assert [each.tag for each in root] == [f"{SVG}path", f"{SVG}g", f"{SVG}g"]
    assert next(root.iter(f"{SVG}title")).text == f"<a&\"'>: {hostile} (t)"
