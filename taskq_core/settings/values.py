"""Parse and check the values of settings and options: durations, numbers, memory sizes, queues and enum members.

An error names the setting, its value and the expected values.
"""

import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from taskq_core.errors import ConfigurationError
from taskq_core.wire import validate_queue_name

Duration = timedelta | float
"""A duration in public parameters: a `timedelta` or a number of seconds."""
E = TypeVar("E", bound=StrEnum)
S = TypeVar("S")

MAX_SECONDS = 100 * 365 * 86_400
"""Longest accepted duration in seconds: 100 years. A longer duration is most likely a number of milliseconds."""


def seconds(name: str, value: object, *, allow_zero: bool = True) -> float:
    """Convert a duration to seconds.

    Raises:
        ConfigurationError: The value is neither a timedelta nor a number, is negative, not finite, or over 100 years.
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < MAX_SECONDS * 2 else math.inf
    else:
        raise ConfigurationError(f"{name} must be a timedelta or a number of seconds, got {value!r}")
    if not math.isfinite(number) or number > MAX_SECONDS:
        raise ConfigurationError(f"{name} must be at most 100 years, got {value!r}")
    if number < 0 or (number == 0 and not allow_zero):
        expected = "0 or more" if allow_zero else "more than 0"
        raise ConfigurationError(f"{name} must be {expected} seconds, got {value!r}")
    return number


def unknown(what: str, name: str, known: Collection[str]) -> ConfigurationError:
    """Return the error for an unknown name. It suggests the most similar known name, or lists all known names."""
    import difflib  # imported here, because only errors need it

    folded = {each.lower(): each for each in known}
    near = [folded[each] for each in difflib.get_close_matches(name.lower(), list(folded), n=1)]
    all_known = f"known are {', '.join(sorted(known))}" if known else "there are none yet"
    hint = f"did you mean {near[0]!r}?" if near else all_known
    return ConfigurationError(f"unknown {what} {name!r}; {hint}")


def by_field(cls: Any, where: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a dict of upper-case keys to a dict of the field names of a dataclass.

    Raises:
        ConfigurationError: A key is unknown.
    """
    known = {each.name.upper(): each.name for each in fields(cls)}
    for key in mapping:
        if key not in known:
            raise unknown(f"setting in {where}", str(key), known)
    return {known[key]: value for key, value in mapping.items()}


def read_record(cls: type[S], name: str, value: Any, *, off: S | None = None) -> S:
    """Convert the value of a setting to a record. The value is a record, a dict of its keys, or False.

    Args:
        cls: Class of the record.
        name: Name of the setting.
        value: Value of the setting.
        off: The record for False. None if False is not allowed.

    Raises:
        ConfigurationError: The value is none of these, or a key is unknown.
    """
    if isinstance(value, cls):
        return value
    if value is False and off is not None:
        return off
    if not isinstance(value, Mapping):
        *keys, last = [each.name.upper() for each in fields(cls)]  # type: ignore[arg-type]  # a dataclass
        expected = f"a dict of {', '.join(keys)} and {last}{'' if off is None else ', or False'}"
        raise ConfigurationError(f"{name} must be {expected}, got {value!r}")
    return cls(**by_field(cls, name, value))


def by_queue(name: str, value: Any, read: Callable[[str, Any], S]) -> dict[str, S]:
    """Check a setting that is a dict of queue names to values, and return it.

    The function `read` takes the name of a value, for error messages, and the value. It checks the value and returns
    it.

    Raises:
        ConfigurationError: The setting is not a dict, or a queue name is not valid.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} must be a dict of queue names, got {value!r}")
    for queue in value:
        if not isinstance(queue, str):
            raise ConfigurationError(f"{name}[{queue!r}]: a queue's name must be text")
        validate_queue_name(queue)
    return {queue: read(f"{name}[{queue!r}]", each) for queue, each in value.items()}


def nearest_hint(name: str, known: Collection[str]) -> str:
    """Return a hint such as "; did you mean 'default'?" for the most similar known name, "" if none is similar."""
    import difflib  # imported here, because only errors need it

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_modules(name: str, value: object) -> tuple[str, ...]:
    """Check a list of module names and return it.

    Raises:
        ConfigurationError: The value is not a list of dotted names.
    """
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and all(part.isidentifier() for part in each.split(".")) for each in value
    ):
        raise ConfigurationError(f"{name} must be a list of module names such as 'shop.tasks', got {value!r}")
    return tuple(value)


def parse_queues(text: str, *, where: str = "QUEUES") -> dict[str, int]:
    """Parse queues with weights from text such as `critical=6,default=3,low`. A queue without a weight has weight 1."""
    queues: dict[str, int] = {}
    for part in text.split(","):
        name, equals, weight = part.strip().rpartition("=")
        if not equals:
            name, weight = part.strip(), "1"
        what = f"{where}: the weight of queue {name!r}"
        queues[name] = check_whole(what, read_whole(what, weight), least=1, most=WEIGHT_MAX)
    return queues


WEIGHT_MAX = 1_000_000
"""Largest allowed weight of a queue."""
AUTO = "auto"
"""Value of the setting `processes` that means one process for each core."""
CONCURRENCY_MAX = 100_000
"""Largest allowed concurrency of a worker."""
PROCESSES_MAX = 512
"""Largest allowed number of processes of a worker."""
LEAST_MEMORY = 16 * 1024 * 1024
"""Smallest allowed `max_memory` in bytes. Every Python process with a project needs more."""
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_MEMORY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,3})")


def read_processes(what: str, text: str) -> int | str:
    """Parse a number of processes, or `auto`, from text.

    Raises:
        ConfigurationError: The text is neither.
    """
    value = text.strip()
    if value.lower() == AUTO:
        return AUTO
    if not value.removeprefix("-").isdigit() or not value.isascii() or len(value) > 18:
        raise ConfigurationError(f"{what} must be a whole number or 'auto', got {text[:80]!r}")
    return int(value)


def check_processes(name: str, value: object) -> None:
    """Check a number of processes.

    Raises:
        ConfigurationError: The value is neither `auto` nor a whole number from 1 to 512.
    """
    if isinstance(value, str):
        if value != AUTO:
            raise ConfigurationError(f"{name} must be a whole number or 'auto', got {value[:80]!r}")
        return
    check_whole(name, value, least=1, most=PROCESSES_MAX)


def message_bytes(name: str, value: object) -> int:
    """Convert the maximum size of a message to bytes. The value has the form of `memory_bytes`.

    Raises:
        ConfigurationError: The value is not a size, or it is less than 17 MiB or more than 512 MiB.
    """
    size = memory_bytes(name, value)
    if not 17 << 20 <= size <= 512 << 20:
        raise ConfigurationError(
            f"{name} must be between 17MiB, because clients accept payloads of 16MiB, and 512MiB, got {value!r}"
        )
    return size


def memory_bytes(name: str, value: object) -> int:
    """Convert a memory size to bytes. The value is a number of bytes, or text such as `300MB` or `1.5GiB`.

    KB, MB and GB are powers of 1000; KiB, MiB and GiB are powers of 1024. Case does not matter.

    Raises:
        ConfigurationError: The value is not a memory size, or is less than 16 MiB or more than 1 PiB.
    """
    number: object = value
    if isinstance(value, str):
        found = _MEMORY.fullmatch(value.strip())
        if found is None or found[2].upper() not in _UNITS:
            raise ConfigurationError(
                f"{name} must be an amount of memory such as '300MB' or '2GiB', got {value[:80]!r}"
            )
        number = int(float(found[1]) * _UNITS[found[2].upper()])
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigurationError(f"{name} must be an amount of memory such as '300MB' or '2GiB', got {value!r}")
    if not LEAST_MEMORY <= number <= 2**50:
        raise ConfigurationError(f"{name} must be between 16MiB and 1PiB, got {value!r} ({number} bytes)")
    return number


def read_whole(what: str, text: str) -> int:
    """Parse a whole number of at most 18 digits from text.

    Raises:
        ConfigurationError: The text is not a whole number.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ConfigurationError(f"{what} must be a whole number, got {text[:80]!r}")
    return int(text)


def check_queues(queues: object) -> dict[str, int]:
    """Check queues and return their weights by name. In a list of names, each queue has weight 1."""
    if isinstance(queues, list | tuple):
        for name in queues:
            if not isinstance(name, str):  # a name that is not text may not be hashable
                raise ConfigurationError(f"QUEUES: a queue's name must be text, got {name!r}")
        queues = dict.fromkeys(queues, 1)
    if not isinstance(queues, Mapping) or not queues:
        raise ConfigurationError(f"QUEUES must map at least one queue to its weight, got {queues!r}")
    return by_queue("QUEUES", queues, lambda where, weight: check_whole(where, weight, least=1, most=WEIGHT_MAX))


def check_flag(name: str, value: object) -> None:
    """Check that a value is True or False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}")


def exception_classes(name: str, value: Any) -> tuple[type[BaseException], ...]:
    """Return a tuple of exception classes from a class or several of them.

    Raises:
        ConfigurationError: The value has something else than exception classes.
    """
    classes = value if isinstance(value, tuple | list) else (value,)
    for each in classes:
        if not inspect.isclass(each) or not issubclass(each, BaseException):
            raise ConfigurationError(f"{name} must be an exception class or a tuple of them, got {each!r}")
    return tuple(classes)


def check_whole(name: str, value: object, *, least: int, most: int) -> int:
    """Check that a value is a whole number between two bounds, and return it.

    Raises:
        ConfigurationError: The value is not a whole number, or is out of bounds.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{name} must be a whole number, got {value!r}")
    if not least <= value <= most:
        raise ConfigurationError(f"{name} must be between {least} and {most}, got {value}")
    return value


def check_health_address(host: object, port: object) -> None:
    """Check the address of the health endpoints.

    Raises:
        ConfigurationError: The host is blank, or the port is neither None nor a number from 0 to 65535.
    """
    if port is not None:
        check_whole("health_port", port, least=0, most=65_535)
    if not isinstance(host, str) or not host.strip():
        raise ConfigurationError(f"health_host must be an address, got {host!r}")


def member(kind: type[E], name: str, value: object) -> E:
    """Convert the value of a setting or option to a member of an enum.

    Raises:
        ConfigurationError: The value is not a member. The message lists the valid values.
    """
    try:
        return kind(value)  # type: ignore[arg-type]  # the enum refuses any other value
    except ValueError:
        *others, last = [repr(member.value) for member in kind]
        expected = f"{', '.join(others)} or {last}"
        raise ConfigurationError(f"{name} must be {expected}, got {value!r}") from None


def members(kind: type[E], name: str, values: object) -> frozenset[E]:
    """Convert the list in a setting or option to members of an enum.

    Raises:
        ConfigurationError: The value is not a list, or an element is not a member.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Collection):
        known = ", ".join(repr(each.value) for each in kind)
        raise ConfigurationError(f"{name} must be a list with values from {known}, got {values!r}")
    return frozenset(member(kind, f"each of {name}", each) for each in values)
