"""Define the columns of tables, and fit them to the width of a terminal. For commands and the terminal dashboard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

GAP = 2
"""Number of spaces between two columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """Describes a column of a table: its heading, its cells and its width.

    Attributes:
        title: Heading of the column. Commands write it in capital letters.
        cell: Returns the cell of a record: a text or a number. For the dashboard, it may also return a function that
            makes the text for a given width. None: each record is a sequence of cells.
        right: Whether to align the cells to the right, for numbers. Cells that are aligned to the right are never cut.
        whole: Whether commands never cut the cells, so that an id can be copied.
        least: Minimum width in the dashboard, unless title and cells are shorter. The minimum in commands is 10.
        drop: Order in which the dashboard drops columns if space is short. It drops the column with the largest number
            first, and a column with 0 never.
        width: Desired width of a column whose cells are functions. The column also takes all space that is left.
        style: Style of the cells in the dashboard: "bold", or the name of a color in `Palette`.
    """

    title: str
    cell: Callable[[Any], Any] | None = None
    right: bool = False
    whole: bool = False
    least: int = 10
    drop: int = 0
    width: int = 0
    style: str = ""


def fitted(columns: Sequence[Column], natural: Sequence[int], room: int, *, is_live: bool = True) -> dict[int, int]:
    """Return the width of each visible column, by index. The widest columns are cut first.

    Args:
        columns: The columns.
        natural: The width of the content of each column.
        room: The available width, including the gaps.
        is_live: Whether the table is in the dashboard, which may drop columns and cut ids.
    """
    least = []
    for each, size in zip(columns, natural, strict=True):
        is_whole = each.right or (each.whole and not is_live)
        least.append(size if is_whole else min(size, each.least if is_live else max(10, each.least)))
    shown = list(range(len(columns)))
    if is_live:
        for index in sorted(shown, key=lambda index: -columns[index].drop):
            if sum(least[each] + GAP for each in shown) <= room or not columns[index].drop:
                break
            shown.remove(index)
    widths = {index: natural[index] for index in shown}
    over = sum(widths.values()) + GAP * len(widths) - room
    while over > 0:
        index = max(shown, key=lambda index: widths[index] - least[index])
        if widths[index] <= least[index]:
            break  # all columns have their minimum width, so the lines stay wider than the terminal
        widths[index] -= 1
        over -= 1
    growing = next((index for index in shown if columns[index].width), None)
    if over < 0 and growing is not None:
        widths[growing] -= over
    return widths
