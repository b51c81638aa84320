"""Describe a row of `python -m benchmarks`: what to measure, and how to show it."""

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
    "connections": "connections",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the table: one of the figures that a measuring function returns.

    Args:
        title: Title of the row.
        function: Name of the measuring function.
        arguments: Arguments of the function. Rows with the same function and arguments share one call.
        figure: Name of the figure in the function's result.
        limit: Title of the row to compare with, for example the raw limit.
        placement: Name of the placement on CPUs. "": the placement of the run.
        is_share: Whether the figure is a share of an upper bound, so that more is better.
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
        """Unit of the figure."""
        if self.figure in ("tasks_per_s", "enqueued_per_s", "steps_per_s", "bare_per_s", "rate"):
            return "tasks/s"
        return next(unit for ending, unit in _UNITS.items() if self.figure.endswith(ending))
