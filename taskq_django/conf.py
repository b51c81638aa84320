"""Convert the `TASKQ` setting into the core's `Settings`.

The environment (`TASKQ_<KEY>`) overrides the dict. `embedded://` without a path keeps its data in `.taskq` below
`BASE_DIR`, so that it does not depend on where a command was started. Where `QUEUES` is not set, workers serve the
queues that the setting `TASKS` needs. Where `TIME_ZONE` is not set, Django's `TIME_ZONE` is the zone of cron lines.
"""

import os
from collections.abc import Mapping
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
    mapping: object = getattr(django_settings, "TASKQ", {})
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"TASKQ must be a dict, got {type(mapping).__name__}")
    settings = Settings.from_mapping(mapping, environ=os.environ)
    if "QUEUES" not in mapping and "TASKQ_QUEUES" not in os.environ:
        needed = queues_of_tasks(getattr(django_settings, "TASKS", None))
        if needed:
            settings = replace(settings, queues={"default": 3, **needed})
    if "TIME_ZONE" not in mapping and "TASKQ_TIME_ZONE" not in os.environ:
        settings = replace(settings, time_zone=django_settings.TIME_ZONE or "UTC")
    check_defaults(settings.defaults)
    check_defaults(settings.email.options, where="EMAIL['OPTIONS']", for_calls=True)
    schedule_lines(settings.schedule, zone=settings.time_zone)
    if settings.url == "embedded://":
        folder = Path(getattr(django_settings, "BASE_DIR", "")).absolute() / EMBEDDED_FOLDER
        settings = replace(settings, url=f"embedded://{quote(str(folder))}")
    return settings
