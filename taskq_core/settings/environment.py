"""Settings from environment variables `TASKQ_<KEY>`."""

import json
import re
from collections.abc import Mapping
from dataclasses import Field, is_dataclass
from typing import Any, get_origin

from taskq_core.errors import ConfigurationError
from taskq_core.settings.values import Duration, parse_queues, read_processes, read_whole, unknown

_FLAGS = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}
_FLAG_TYPES = (bool, bool | tuple[str, ...])
_SERVICE_LINK = re.compile(r"(PORT|SERVICE_HOST|SERVICE_PORT)(_|$)")
"""Matches `<KEY>` of variables that Kubernetes sets for a service named `taskq`, such as `TASKQ_PORT`."""


def read_environ(environ: Mapping[str, str], known: Mapping[str, Field[Any]]) -> dict[str, Any]:
    """Return the settings from `TASKQ_<KEY>` variables by field name. The values are not checked.

    Args:
        environ: The environment. Variables that do not begin with `TASKQ_` are ignored.
        known: Field names of the settings, by `<KEY>`.

    Raises:
        ConfigurationError: A variable that begins with `TASKQ_` is unknown, or its text cannot be parsed.
    """
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        key = variable.removeprefix("TASKQ_")
        if key == variable or _SERVICE_LINK.match(key):
            continue
        if key not in known:
            raise unknown("environment variable", variable, [f"TASKQ_{name}" for name in known])
        values[known[key].name] = _parse(variable, known[key], text)
    return values


def _parse(variable: str, field: Field[Any], text: str) -> Any:
    kind: Any = field.type
    if field.name == "queues" and not text.lstrip().startswith("{"):
        return parse_queues(text, where=variable)
    if field.name == "include":
        return [name.strip() for name in text.split(",") if name.strip()]
    if field.name == "processes":
        return read_processes(variable, text)
    if get_origin(kind) is Mapping or is_dataclass(kind):
        try:
            return json.loads(text)
        except ValueError:
            raise ConfigurationError(f"{variable} must be JSON, got {text!r}") from None
    if kind in _FLAG_TYPES:
        if text.lower() not in _FLAGS:
            raise ConfigurationError(f"{variable} must be true or false, got {text!r}")
        return _FLAGS[text.lower()]
    if kind in (int, int | None):
        return read_whole(variable, text)
    if kind == Duration:
        try:
            return float(text)
        except ValueError:
            raise ConfigurationError(f"{variable} must be a number of seconds, got {text!r}") from None
    return text
