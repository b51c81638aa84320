"""Settings as texts of the environment: `TASKQ_<KEY>`."""

import json
import re
from collections.abc import Mapping
from typing import Any

from taskq_core.errors import ConfigurationError
from taskq_core.settings.values import parse_queues, read_processes, read_whole, unknown

_FLAGS = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}
_FLAG_KEYS = ("STRICT_PRIORITY", "EAGER", "EAGER_PROPAGATES", "REDIS_IN_TESTS", "DEV_WORKER", "AUTODISCOVER")
_JSON_KEYS = (
    "QUEUES",
    "LIMITS",
    "CIRCUIT_BREAKER",
    "DEFAULTS",
    "SCHEDULE",
    "CARRY",
    "EMAIL",
    "ARCHIVE",
    "LOG",
    "TRACE",
)
_SERVICE_LINK = re.compile(r"(PORT|SERVICE_HOST|SERVICE_PORT)(_|$)")
"""What Kubernetes sets for a service named `taskq`: nobody's settings."""


def read_environ(environ: Mapping[str, str], known: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that `TASKQ_<KEY>` variables give, by the name of their field, not checked yet.

    Args:
        environ: The environment; variables that do not begin `TASKQ_` are not looked at.
        known: Names of fields by the keys there are.

    Raises:
        ConfigurationError: A variable that begins `TASKQ_` is unknown, or its text cannot be read.
    """
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith("TASKQ_"):
            continue
        key = variable.removeprefix("TASKQ_")
        if _SERVICE_LINK.match(key):
            continue
        if key not in known:
            raise unknown("environment variable", variable, [f"TASKQ_{name}" for name in known])
        values[known[key]] = _parse(variable, key, text)
    return values


def _parse(variable: str, key: str, text: str) -> Any:
    if key in _JSON_KEYS:
        if key == "QUEUES" and not text.lstrip().startswith("{"):
            return parse_queues(text, where=variable)
        try:
            return json.loads(text)
        except ValueError:
            raise ConfigurationError(f"{variable} must be JSON, got {text!r}") from None
    if key in _FLAG_KEYS:
        if text.lower() not in _FLAGS:
            raise ConfigurationError(f"{variable} must be true or false, got {text!r}")
        return _FLAGS[text.lower()]
    if key in ("CONCURRENCY", "MAX_TASKS"):
        return read_whole(variable, text)
    if key == "INCLUDE":
        return [name.strip() for name in text.split(",") if name.strip()]
    if key == "PROCESSES":
        return read_processes(variable, text)
    if key in ("SHUTDOWN_GRACE", "ENQUEUE_TIMEOUT", "UNKNOWN_TASK_TIMEOUT"):
        try:
            return float(text)
        except ValueError:
            raise ConfigurationError(f"{variable} must be a number of seconds, got {text!r}") from None
    return text
