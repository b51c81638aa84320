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
    """Name of the picture that contains the rows of this setting: `10`, `50` or `two`."""
    command: str
    """Command of the worker. `{adapter}` stands for the module of the adapter."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values that the adapter reads; see `tasks.SETTING`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    copies: int = 1
    """Number of processes that run the command."""
    measures: frozenset[str] = frozenset({DRAIN})
    enqueues: bool = False
    """Whether enqueues are measured in this setting. True for one setting of each peer."""
    fewest: int = 100
    """Minimum number of tasks of a drain. If workers poll, it must be more than they read at once."""

    @property
    def placement(self) -> str:
        """Name of the placement: two processes may use all CPUs, one process runs on another CPU than Redis."""
        return "spread" if self.group == "two" else "apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A task queue that is compared with taskq, or taskq itself."""

    name: str
    """Name of its adapter, its environment and its rows."""
    packages: tuple[str, ...]
    """The packages to install. Empty for taskq, which is not installed."""
    distribution: str
    """The package whose version is reported."""
    page: str
    """Web page on which the settings are based."""
    settings: tuple[Setting, ...]
    node: bool = False


ALL = frozenset({DRAIN, IO, IDLE})


def other(
    name: str, command: str, kind: str, concurrency: int = 50, environment: Mapping[str, str] | None = None
) -> Setting:
    """Return a setting whose tasks are of the other kind: plain functions instead of coroutines, or the reverse."""
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
    """Return the three usual settings: concurrency 50, concurrency 10, and two processes of 50.

    `command` contains `{concurrency}` and `{processes}`.
    """
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
