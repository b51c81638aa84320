"""Steps of a workflow as lines of a tree."""

from taskq_core.views.step_tree import step_tree
from tests.rows import rows
from tests.taskq_core.views.test_workflows import graph


def drawn(**after: tuple[str, ...]) -> list[str]:
    """Return the tree of steps as lines of text."""
    lines = []
    for line in step_tree(graph(**after)):
        rails = ["| " if goes_on else "  " for goes_on in line.rails]
        if line.is_branch:
            rails[-1] = "+ " if line.rails[-1] else "` "
        lines.append("".join(rails) + line.step.name)
    return lines


def test_one_step_after_another_stands_right_below() -> None:
    assert drawn(a=(), b=("a",), c=("b",)) == ["a", "b", "c"]


def test_several_that_follow_a_step_branch_off() -> None:
    assert drawn(a=(), b=("a",), c=("b",), d=("a",), e=("d",)) == ["a", "+ b", "| c", "` d", "  e"]


def test_what_comes_after_several_stands_below_all_of_them() -> None:
    """Behind the last step that they all come after: not inside the branch of one of them."""
    assert drawn(a=(), b=("a",), c=("a",), d=("c",), end=("b", "d"), last=("end",)) == [
        "a",
        "+ b",
        "+ c",
        "| d",
        "` end",
        "  last",
    ]


def test_several_first_steps_are_branches() -> None:
    assert drawn(a=(), b=(), c=("a", "b")) == ["+ a", "+ b", "` c"]


def test_branches_of_branches_keep_their_rails() -> None:
    assert drawn(a=(), b=("a",), c=("b",), d=("b",), e=("a",)) == ["a", "+ b", "| + c", "| ` d", "` e"]


@rows("count", [0, 1, 5000])
def test_each_step_stands_there_once_however_many_there_are(count: int) -> None:
    names = [f"s{number}" for number in range(count)]
    after = {name: (names[number - 1],) if number else () for number, name in enumerate(names)}

    assert [line.step.name for line in step_tree(graph(**after))] == names
