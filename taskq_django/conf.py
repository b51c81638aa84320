"""Convert the `TASKQ` setting into the core's `Settings`.

The environment (`TASKQ_<KEY>`) overrides the dict. `embedded://` without a path keeps its data in `.taskq` below
`BASE_DIR`, so that it does not depend on where a command was started. Where `QUEUES` is not set, workers serve the
queues that the setting `TASKS` needs. Where `TIME_ZONE` is not set, Django's `TIME_ZONE` is the zone of cron lines.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from django.conf import settings as django_settings

from taskq_core import ConfigurationError, Settings
from taskq_core.tasks.options import check_defaults
from taskq_core.tasks.schedule_setting import schedule_lines
from taskq_django.tasks_backend.options import queues_of_tasks

EMBEDDED_FOLDER = ".taskq"
"""Folder of the private server's data, below `BASE_DIR`."""


def read_settings() -> Settings:
    """Read the current settings from Django and from the environment.

    Raises:
        ConfigurationError: The setting is not a dict, a key is unknown (the nearest known one is named), or a value is
            not usable.
    """
    return _read(getattr(django_settings, "TASKQ", {}), os.environ)


def settings_errors() -> list[ConfigurationError]:
    """Return all errors of the settings, for the system check.

    Reading stops at the first error. So leave out the key that causes it, and read again.
    """
    mapping, environ = getattr(django_settings, "TASKQ", {}), dict(os.environ)
    found: list[ConfigurationError] = []
    while True:
        error = _error(mapping, environ)
        if error is None:
            return found
        found.append(error)
        for smaller in _smaller(mapping, environ, str(error)):
            if str(_error(*smaller)) != str(error):
                mapping, environ = smaller
                break
        else:
            return found


def _error(mapping: object, environ: Mapping[str, str]) -> ConfigurationError | None:
    try:
        _read(mapping, environ)
    except ConfigurationError as error:
        return error
    return None


def _smaller(mapping: object, environ: dict[str, str], text: str) -> Iterator[tuple[object, dict[str, str]]]:
    """Yield the settings without one key: first without the keys that an error names, and inner keys before outer."""
    if not isinstance(mapping, Mapping):
        return
    without: list[tuple[bool, object, dict[str, str]]] = []
    for key, value in mapping.items():
        for inner in value if isinstance(value, Mapping) else ():
            rest = {name: each for name, each in value.items() if name != inner}
            without.append((str(inner) in text, {**mapping, key: rest}, environ))
        rest = {name: each for name, each in mapping.items() if name != key}
        without.append((str(key) in text, rest, environ))
    without += [
        (name in text, mapping, {each: environ[each] for each in environ if each != name})
        for name in environ
        if name.startswith("TASKQ_")
    ]
    for _is_named, smaller, fewer in sorted(without, key=lambda each: not each[0]):
        yield smaller, fewer


def _read(mapping: object, environ: Mapping[str, str]) -> Settings:
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"TASKQ must be a dict, got {type(mapping).__name__}")
    settings = Settings.from_mapping(mapping, environ=environ)
    if "QUEUES" not in mapping and "TASKQ_QUEUES" not in environ:
        needed = queues_of_tasks(getattr(django_settings, "TASKS", None))
        if needed:
            settings = replace(settings, queues={"default": 3, **needed})
    if "TIME_ZONE" not in mapping and "TASKQ_TIME_ZONE" not in environ:
        settings = replace(settings, time_zone=django_settings.TIME_ZONE or "UTC")
    check_defaults(settings.defaults)
    check_defaults(settings.email.options, where="EMAIL['OPTIONS']", for_calls=True)
    schedule_lines(settings.schedule, zone=settings.time_zone)
    if settings.url == "embedded://":
        folder = Path(getattr(django_settings, "BASE_DIR", "")).absolute() / EMBEDDED_FOLDER
        settings = replace(settings, url=f"embedded://{quote(str(folder))}")
    return settings
