"""Read `OPTIONS` of the backend in the setting `TASKS`, and map priorities to queues.

Asynq has no priority of a single task: tasks of a queue run in order, and queues have weights. So priorities are
divided into bands, and each band of a queue is a separate queue. The band without a name is the queue itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from taskq_core import ConfigurationError
from taskq_core.settings import unknown
from taskq_core.tasks.options import TaskOptionsDict, task_options
from taskq_core.wire import validate_queue_name

PATHS = ("taskq_django.TaskQBackend", "taskq_django.tasks_backend.backend.TaskQBackend")
"""Values of `BACKEND` that name this backend."""
DAY_S = 86_400
DEFAULTS: Mapping[str, Any] = MappingProxyType({"max_retry": 0, "retention": DAY_S})
"""Default options of this backend's tasks. By the framework's rules a task runs once and its result is kept."""
_NOT_HERE = ("queue", "priority", "run_after", "task_id", "on_missing")
"""taskq's options that the framework replaces by its own, or that it has no use for."""
TASK_OPTIONS = tuple(name for name in TaskOptionsDict.__annotations__ if name not in _NOT_HERE)
"""Task options that a task of this backend can have."""
LOWEST, HIGHEST = -100, 100
"""Bounds of the framework's priorities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A range of priorities that share a queue.

    Attributes:
        name: Suffix of the queue's name, after a hyphen. "" for the queue itself.
        least: Lowest priority of the band. The band ends below the `least` of the next higher one.
        weight: Weight of the band's queue if `TASKQ` does not set `QUEUES`.
    """

    name: str
    least: int
    weight: int

    def queue(self, name: str) -> str:
        """Return the name of this band's queue for a task in the queue `name`."""
        return f"{name}-{self.name}" if self.name else name


BANDS = (
    Band(name="high", least=1, weight=6),
    Band(name="", least=0, weight=3),
    Band(name="low", least=LOWEST, weight=1),
)
"""The default bands, the highest first. The weights are those of Asynq's examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """Checked `OPTIONS` of the backend."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Task options for every task of the backend. They override `TASKQ['DEFAULTS']`."""
    bands: tuple[Band, ...] = BANDS
    """Bands of priorities, the highest first. If empty, tasks have no priority."""

    def queues(self, name: str) -> list[str]:
        """Return the queues of all bands of a queue, the highest band first."""
        return [band.queue(name) for band in self.bands] or [name]

    def queue_for(self, name: str, priority: int, served: Iterable[str]) -> str:
        """Return the queue of the priority's band if it is in `served`, else the queue itself."""
        for band in self.bands:
            if priority >= band.least:
                return found if (found := band.queue(name)) in served else name
        return name


def read_options(given: object) -> BackendOptions:
    """Check `OPTIONS` and return them as a record.

    Raises:
        ConfigurationError: `OPTIONS` is not a dict, a key is unknown, or a value is not valid.
    """
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"OPTIONS must be a dict, got {type(given).__name__}")
    known = ("DEFAULTS", "PRIORITY_BANDS")
    for key in given:
        if key not in known:
            raise unknown("option of the backend", str(key), known)
    options = BackendOptions()
    if "DEFAULTS" in given:
        options = BackendOptions(defaults=_read_defaults(given["DEFAULTS"]))
    if "PRIORITY_BANDS" in given:
        options = BackendOptions(defaults=options.defaults, bands=_read_bands(given["PRIORITY_BANDS"]))
    return options


def _read_defaults(given: object) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"DEFAULTS must be a dict of task options, got {type(given).__name__}")
    for name in given:
        if name not in TASK_OPTIONS:
            raise unknown("task option in DEFAULTS", str(name), TASK_OPTIONS)
    try:
        task_options(given)
    except ConfigurationError as error:
        raise ConfigurationError(f"DEFAULTS: {error}") from None
    return MappingProxyType(dict(given))


def _read_bands(given: object) -> tuple[Band, ...]:
    if not given:
        return ()
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"PRIORITY_BANDS must map names of bands to (lowest priority, weight), got {type(given).__name__}"
        )
    bands = sorted((_read_band(name, value) for name, value in given.items()), key=lambda band: -band.least)
    lows = [band.least for band in bands]
    if len(set(lows)) < len(lows):
        raise ConfigurationError(f"PRIORITY_BANDS: two bands begin at the same priority, got {lows}")
    if lows[-1] != LOWEST:
        raise ConfigurationError(f"PRIORITY_BANDS: the lowest band must begin at {LOWEST}, got {lows[-1]}")
    plain = next(band for band in bands if band.least <= 0)
    if plain.name:
        raise ConfigurationError(
            "PRIORITY_BANDS: the band of priority 0 must have the name '', as it is the queue itself, "
            f"got {plain.name!r}"
        )
    return tuple(bands)


def _read_band(name: object, value: object) -> Band:
    if not isinstance(name, str):
        raise ConfigurationError(f"PRIORITY_BANDS: the name of a band must be text, got {name!r}")
    if name:
        validate_queue_name(name)
    pair = tuple(value) if isinstance(value, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(each, int) and not isinstance(each, bool) for each in pair):
        raise ConfigurationError(
            f"PRIORITY_BANDS[{name!r}] must be (lowest priority, weight), two whole numbers, got {value!r}"
        )
    least, weight = pair
    if not LOWEST <= least <= HIGHEST:
        raise ConfigurationError(
            f"PRIORITY_BANDS[{name!r}]: the lowest priority must be between {LOWEST} and {HIGHEST}, got {least}"
        )
    if weight < 1:
        raise ConfigurationError(f"PRIORITY_BANDS[{name!r}]: the weight must be at least 1, got {weight}")
    return Band(name=name, least=least, weight=weight)


def queues_of_tasks(setting: object) -> dict[str, int]:
    """Return the queues of this backend in the setting `TASKS`, with their weights.

    Invalid parts are skipped, because a system check reports them.
    """
    found: dict[str, int] = {}
    for params in setting.values() if isinstance(setting, Mapping) else ():
        if not isinstance(params, Mapping) or params.get("BACKEND") not in PATHS:
            continue
        try:
            bands = read_options(params.get("OPTIONS", {})).bands
        except ConfigurationError:
            bands = BANDS
        for name in params.get("QUEUES", ["default"]) or ["default"]:
            for band in bands or (Band(name="", least=LOWEST, weight=3),):
                queue = band.queue(str(name))
                found[queue] = max(band.weight, found.get(queue, 0))
    return found
