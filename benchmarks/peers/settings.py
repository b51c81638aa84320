"""Define peers and the settings of their workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DRAIN, IO, IDLE = "drain", "io", "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a peer's workers."""

    name: str
    group: str
    """Rows of one group are drawn in one picture: `10`, `50` or `two`."""
    command: str
    """Arguments of the worker; `{adapter}` is the module."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Read by the adapter."""
    environment: Mapping[str, str] = field(default_factory=dict)
    copies: int = 1
    """How often the command is started."""
    measures: frozenset[str] = frozenset({DRAIN})
    enqueues: bool = False
    """Whether enqueueing is measured with it: once for a peer."""
    fewest: int = 100
    """Tasks of a drain at least. Where workers poll, more than they take with one look."""

    @property
    def placement(self) -> str:
        """Two processes get all CPUs, one a CPU apart from Redis."""
        return "spread" if self.group == "two" else "apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A task queue."""

    name: str
    """Of its adapter, environment and rows."""
    packages: tuple[str, ...]
    """The packages to install; empty for this project."""
    distribution: str
    """The package whose version is reported."""
    page: str
    """Where the setting comes from."""
    settings: tuple[Setting, ...]
    node: bool = False


ALL = frozenset({DRAIN, IO, IDLE})


def other(
    name: str, command: str, kind: str, concurrency: int = 50, environment: Mapping[str, str] | None = None
) -> Setting:
    """Return a setting in which tasks are functions of the other kind than usual."""
    return Setting(
        name=name,
        group="50",
        command=command,
        values={"concurrency": concurrency, "kind": kind},
        environment=environment or {},
        measures=frozenset({DRAIN, IO}),
    )


def usual(
    command: str,
    *,
    what: str = "coroutines",
    two: str | None = None,
    copies: int = 1,
    values: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    word: str = "",
    measures: frozenset[str] = ALL,
    enqueues: bool = True,
) -> tuple[Setting, ...]:
    """Return concurrency 50, 10, and two processes of 50, with `{concurrency}` and `{processes}` in the command."""
    some, tail = dict(values or {}), f", {word}" if word else ""
    shared: dict[str, Any] = {"environment": environment or {}}

    def written(text: str, concurrency: int, processes: int) -> str:
        return text.replace("{concurrency}", str(concurrency)).replace("{processes}", str(processes))

    return (
        Setting(
            name=f"50 {what}{tail}",
            group="50",
            command=written(command, 50, 1),
            values={**some, "concurrency": 50},
            measures=measures,
            enqueues=enqueues,
            **shared,
        ),
        Setting(
            name=f"10 {what}{tail}",
            group="10",
            command=written(command, 10, 1),
            values={**some, "concurrency": 10},
            **shared,
        ),
        Setting(
            name=f"two processes of 50 {what}{tail}",
            group="two",
            command=written(two or command, 50, 2),
            values={**some, "concurrency": 50},
            copies=copies,
            **shared,
        ),
    )
