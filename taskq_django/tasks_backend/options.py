"""Read `OPTIONS` of the backend in the setting `TASKS`, and map priorities to queues.

Asynq has no priority of a single task: tasks of a queue run in order, and queues have weights. So priorities are
divided into three bands, and each band of a queue is a separate queue. Priority 0 is the queue itself.
"""

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from taskq_core import ConfigurationError
from taskq_core.settings import unknown
from taskq_core.tasks.options import TaskOptionsDict, task_options

PATHS = ("taskq_django.TaskQBackend", "taskq_django.tasks_backend.backend.TaskQBackend")
"""Values of `BACKEND` that name this backend."""
DAY_S = 86_400
DEFAULTS: Mapping[str, Any] = MappingProxyType({"max_retry": 0, "retention": DAY_S})
"""Default options of this backend's tasks. By the framework's rules, a task runs once and its result is stored."""
REFUSED_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "queue": "the framework's queue_name replaces it",
        "priority": "the framework's priority replaces it",
        "run_after": "the framework's run_after replaces it",
        "task_id": "the backend chooses the id of each task",
        "on_missing": "arguments are JSON values and refer to no objects",
        "signals": "the context of the framework cannot receive signals",
    }
)
"""Options of taskq that tasks of the framework cannot have, with the reason."""
TASK_OPTIONS = tuple(name for name in TaskOptionsDict.__annotations__ if name not in REFUSED_OPTIONS)
"""Task options that a task of this backend can have, in `using(...)`, `@task(...)` and `DEFAULTS`."""


class Band(NamedTuple):
    """A range of priorities that share a queue.

    Attributes:
        suffix: End of the queue's name.
        least: Lowest priority of the band.
        weight: Weight of the band's queue if `TASKQ` does not set `QUEUES`.
    """

    suffix: str
    least: int
    weight: int


BANDS = (Band("-high", 1, 6), Band("", 0, 3), Band("-low", -100, 1))
"""The bands, the highest first. The weights are those of Asynq's examples."""


def band_queue(name: str, priority: int) -> str:
    """Return the queue of the priority's band, for a task in the queue `name`."""
    return name + next(band.suffix for band in BANDS if priority >= band.least)


def served_queue(name: str, priority: int, served: Container[str]) -> str:
    """Return the queue of the priority's band if workers serve it, else the queue `name`."""
    found = band_queue(name, priority)
    return found if found in served else name


def read_defaults(options: object) -> Mapping[str, Any]:
    """Check `OPTIONS` of the backend, and return its `DEFAULTS`: task options that override `TASKQ['DEFAULTS']`.

    Raises:
        ConfigurationError: `OPTIONS` is not a dict, a key is unknown, or a value is not valid.
    """
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"OPTIONS must be a dict, got {type(options).__name__}")
    for key in options:
        if key != "DEFAULTS":
            raise unknown("option of the backend", str(key), ("DEFAULTS",))
    given = options.get("DEFAULTS", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"DEFAULTS must be a dict of task options, got {type(given).__name__}")
    for name in given:
        if name in REFUSED_OPTIONS:
            raise ConfigurationError(f"DEFAULTS cannot have {name!r}: {REFUSED_OPTIONS[name]}")
        if name not in TASK_OPTIONS:
            raise unknown("task option in DEFAULTS", str(name), TASK_OPTIONS)
    try:
        task_options(given)
    except ConfigurationError as error:
        raise ConfigurationError(f"DEFAULTS: {error}") from None
    return MappingProxyType(dict(given))


def queues_of_tasks(setting: object) -> dict[str, int]:
    """Return the queues of this backend in the setting `TASKS`, with their weights."""
    found: dict[str, int] = {}
    for params in setting.values() if isinstance(setting, Mapping) else ():
        if isinstance(params, Mapping) and params.get("BACKEND") in PATHS:
            for name in params.get("QUEUES", ["default"]) or ["default"]:
                for band in BANDS:
                    queue = f"{name}{band.suffix}"
                    found[queue] = max(band.weight, found.get(queue, 0))
    return found
