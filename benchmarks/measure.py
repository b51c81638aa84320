"""A row of `python -m benchmarks`, before it is measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_UNITS: Mapping[str, str] = {
    "_us": "us",
    "_ms": "ms",
    "_mb": "MB",
    "_bytes": "B",
    "per_s": "/s",
    "_s": "s",
    "percent": "%",
    "second": "tasks",
    "a_task": "a task",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A row: one figure of a function.

    Args:
        title: Of the row.
        function: Its name.
        arguments: Rows of the same function with the same arguments come of one call.
        figure: Name of the figure.
        limit: Title of the row to compare with, for example the raw limit.
        placement: Where it runs; "" where the others do.
        is_share: Whether it is a share of something that cannot be passed, so that more is better.
    """

    title: str
    function: str
    arguments: dict[str, Any]
    figure: str
    limit: str = ""
    placement: str = ""
    is_share: bool = False

    @property
    def unit(self) -> str:
        """Unit of its figure."""
        if self.figure in ("tasks_per_s", "steps_per_s", "bare_per_s", "rate"):
            return "tasks/s"
        return next(unit for ending, unit in _UNITS.items() if self.figure.endswith(ending))
