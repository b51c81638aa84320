"""Limits of tasks: how many run at once, in which order, and how often.

Each limit has a name and, with a key, one slot for each value of the key. A task carries its limits as text, one line
each, which scripts read; see `lua/_limits.lua`. A limit applies to one queue, for all its workers together.
"""

import hashlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

from taskq_core.errors import ConfigurationError, TaskArgumentsError, WireFormatError
from taskq_core.settings import check_whole, member
from taskq_core.wire import MAX_NAME_BYTES, decode_message
from taskq_core.wire.quoting import escape_limit_name

Key = str | Callable[..., Any] | None
"""Selects the slot of a limit: the name of a parameter, or a function with names of parameters as its parameters."""
Cost = int | str | Callable[..., Any]
"""Cost of a call: a number, the name of a parameter, or a function with names of parameters as its parameters."""

LIMIT_MAX = 1_000_000_000
"""Largest number of a limit."""
PERIOD_MAX_S = 31 * 86_400
"""Longest period of a rate, in seconds."""
HEADER = "taskq-limit"
"""Header with the limits of a task. Workers need not apply limits again that were applied at the enqueue."""
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RATE = re.compile(r"(\d+)/(\d*)(ms|s|m|h|d)")
_PLAIN = re.compile(r"[\x20-\x7e]{1,64}")


class RateWindow(StrEnum):
    """How a rate is counted."""

    BUCKET = "bucket"
    """Token bucket: tokens arrive evenly, and at most `burst` of them are kept. In any time span t, at most
    burst + rate * t are spent."""
    FIXED = "fixed"
    """The number of the rate in each period by Redis's clock, counted from 1970. No more than twice as many start in
    any span as long as a period."""


class OnFailure(StrEnum):
    """What happens to a sequence when one of its tasks is archived."""

    BLOCK = "block"
    """The next task waits until the archived one has succeeded after all or is deleted."""
    SKIP = "skip"
    """The next task starts."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A number of starts in a period, for all workers of the queue together.

    Attributes:
        rate: The number and the period, as "100/m" or "5/10s"; units are ms, s, m, h and d. Each at least 1.
        burst: Most starts at once with a token bucket; None: what comes in a tenth of a second, at least 1.
        window: How it is counted.
        key: Each value has a separate limit. None: all calls share one.
        cost: Cost of a call, at least 1.
        name: Tasks of one queue whose limits have the same name share them. "": the task's own.
    """

    rate: str
    burst: int | None = None
    window: RateWindow | str = RateWindow.BUCKET
    key: Key = None
    cost: Cost = 1
    name: str = ""

    def __post_init__(self) -> None:
        tokens, _ = parse_rate(self.rate)
        object.__setattr__(self, "window", member(RateWindow, "window", self.window))
        if self.burst is not None:
            check_whole("burst", self.burst, least=1, most=LIMIT_MAX)
            if self.window is RateWindow.FIXED:
                raise ConfigurationError("burst belongs to window='bucket'; with 'fixed' the number of the rate is it")
        _check_key("key", self.key)
        if isinstance(self.cost, int):
            check_whole("cost", self.cost, least=1, most=LIMIT_MAX)
            if self.window is RateWindow.FIXED and self.cost > tokens:
                raise ConfigurationError(f"cost must be at most the {tokens} of the rate, got {self.cost}")
        else:
            _check_key("cost", self.cost)
        _check_name(self.name)

    @property
    def spec(self) -> str:
        """The numbers as scripts read them."""
        return rate_spec(self.rate, self.burst, self.window)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """A number of runs at once, for all workers of the queue together.

    Attributes:
        limit: Most runs at once, at least 1.
        key: Each value has a separate limit. None: all calls share one.
        name: Tasks of one queue whose limits have the same name share them. "": the task's own.
    """

    limit: int
    key: Key = None
    name: str = ""

    def __post_init__(self) -> None:
        check_whole("concurrency", self.limit, least=1, most=LIMIT_MAX)
        _check_key("key", self.key)
        _check_name(self.name)

    @property
    def spec(self) -> str:
        """The number as scripts read it."""
        return str(self.limit)


@dataclass(frozen=True, slots=True)
class TaskSequence:
    """One at a time for each value of the key, in the order in which they were enqueued or became due.

    A task that is retried keeps its turn.

    Attributes:
        key: Each value has a separate sequence.
        on_failure: What happens to the sequence when one of its tasks is archived.
        name: Tasks of one queue whose sequences have the same name share them. "": the task's own.
    """

    key: Key
    on_failure: OnFailure | str = OnFailure.BLOCK
    name: str = ""

    def __post_init__(self) -> None:
        if self.key is None:
            raise ConfigurationError("sequence must have a key: a parameter's name or a function of parameters")
        _check_key("key", self.key)
        object.__setattr__(self, "on_failure", member(OnFailure, "on_failure", self.on_failure))
        _check_name(self.name)

    @property
    def spec(self) -> str:
        """The option `on_failure` as scripts read it."""
        return str(self.on_failure)


Limit = RateLimit | Concurrency | TaskSequence


def as_rate_limit(value: Any) -> RateLimit | None:
    """Return the option `rate_limit` as a record: text is a rate.

    Raises:
        ConfigurationError: It cannot be one.
    """
    if value is None or isinstance(value, RateLimit):
        return value
    if isinstance(value, str):
        return RateLimit(value)
    raise ConfigurationError(f"rate_limit must be a rate as '100/m' or a RateLimit, got {value!r}")


def as_concurrency(value: Any) -> tuple[Concurrency, ...]:
    """Return the option `concurrency` as records, those with a key first: a number is one for all calls.

    Raises:
        ConfigurationError: It cannot be one.
    """
    if value is None:
        return ()
    found = []
    for each in value if isinstance(value, tuple | list) else (value,):
        if isinstance(each, Concurrency):
            found.append(each)
        elif isinstance(each, int):
            found.append(Concurrency(each))
        else:
            raise ConfigurationError(f"concurrency must be a number or a Concurrency, or some of them, got {each!r}")
    return tuple(sorted(found, key=lambda each: each.key is None))


def as_sequence(value: Any) -> TaskSequence | None:
    """Return the option `sequence` as a record: text and functions are its key.

    Raises:
        ConfigurationError: It cannot be one.
    """
    if value is None or isinstance(value, TaskSequence):
        return value
    if isinstance(value, str) or callable(value):
        return TaskSequence(value)
    raise ConfigurationError(f"sequence must be a parameter's name, a function or a TaskSequence, got {value!r}")


def parse_rate(rate: Any) -> tuple[int, int]:
    """Return the number and the milliseconds of a rate.

    Raises:
        ConfigurationError: It is not a rate, or out of bounds.
    """
    match = _RATE.fullmatch(rate.replace(" ", "")) if isinstance(rate, str) else None
    if match is None:
        raise ConfigurationError(f"rate_limit must be a number and a period as '100/m' or '5/10s', got {rate!r}")
    tokens, period_ms = int(match[1]), int(match[2] or 1) * _UNITS_MS[match[3]]
    if not 1 <= tokens <= LIMIT_MAX:
        raise ConfigurationError(f"rate_limit must be at least 1 and at most {LIMIT_MAX} in its period, got {rate!r}")
    if not 1 <= period_ms <= PERIOD_MAX_S * 1000:
        raise ConfigurationError(f"rate_limit must have a period from 1 ms to 31 days, got {rate!r}")
    return tokens, period_ms


def rate_spec(rate: str, burst: int | None, window: RateWindow | str) -> str:
    """Return a rate as scripts read it."""
    tokens, period_ms = parse_rate(rate)
    if window == RateWindow.FIXED:
        return f"w/{tokens}/{period_ms}"
    return f"b/{tokens}/{period_ms}/{burst or max(1, math.ceil(tokens * 100 / period_ms))}"


def shown_spec(spec: str) -> str:
    """Return the numbers of a limit as people write them."""
    way, _, rest = spec.partition("/")
    if way not in ("b", "w"):
        return spec
    tokens, period, *burst = rest.split("/")
    period_ms = int(period)
    unit = next(name for name, size in reversed(_UNITS_MS.items()) if period_ms % size == 0)
    count = period_ms // _UNITS_MS[unit]
    rate = f"{tokens}/{count if count > 1 else ''}{unit}"
    return f"{rate}, {burst[0]} at once" if way == "b" else f"{rate}, fixed"


class Limits:
    """The limits of one task, bound to its name and its parameters.

    Args:
        task: Name of the task.
        limits: Its limits.
        defaults: Defaults of its parameters by name, `inspect.Parameter.empty` where it has none; None if the
            parameters are not known, as of a task whose code is elsewhere.

    Raises:
        ConfigurationError: A key or cost needs a parameter that the task does not have, or two limits have the same
        name.
    """

    def __init__(self, task: str, limits: Iterable[Limit], defaults: Mapping[str, Any] | None) -> None:
        self._task = task
        self._defaults = defaults or {}
        self._bound: list[tuple[str, Limit, _Read | None, _Read | None]] = []
        order = {TaskSequence: 0, Concurrency: 1, RateLimit: 2}
        for limit in sorted(limits, key=lambda each: order[type(each)]):
            kind = "scr"[order[type(limit)]]
            own = f"{task}/key" if isinstance(limit, Concurrency) and limit.key is not None else task
            name = f"{kind}:{escape_limit_name(limit.name or own)}"
            if any(name == other for other, *_ in self._bound):
                raise ConfigurationError(f"two limits have the same name {limit.name or own!r}; give one another name=")
            cost = limit.cost if isinstance(limit, RateLimit) and not isinstance(limit.cost, int) else None
            self._bound.append(
                (name, limit, self._reader("key", limit.key, defaults), self._reader("cost", cost, defaults))
            )

    @property
    def need_arguments(self) -> bool:
        """Whether they depend on the arguments of a call."""
        return any(key is not None or cost is not None for _, _, key, cost in self._bound)

    @property
    def specs(self) -> dict[str, str]:
        """The numbers of its limits by kind and name, as scripts read them."""
        return {name: limit.spec for name, limit, *_ in self._bound}

    def _reader(self, what: str, asked: Any, defaults: Mapping[str, Any] | None) -> "_Read | None":
        if asked is None:
            return None
        read = _Read(what, asked)
        unknown = [] if defaults is None else [each for each in read.names if each not in defaults]
        if unknown:
            raise ConfigurationError(
                f"{what} asks for {unknown[0]!r}, which is no parameter of the task; "
                f"it has {', '.join(defaults or ()) or 'none'}"
            )
        return read

    def text(self, arguments: Mapping[str, object]) -> str:
        """Return the limits of a call with these arguments, as text.

        Raises:
            TaskArgumentsError: A key or a cost cannot be computed from the arguments.
        """
        lines = []
        for name, limit, key, cost in self._bound:
            slot = "" if key is None else self._slot(key(self._task, arguments, self._defaults))
            number = 1
            if cost is not None:
                number = self._number(limit, cost(self._task, arguments, self._defaults))
            elif isinstance(limit, RateLimit):
                assert isinstance(limit.cost, int)
                number = limit.cost
            lines.append(f"{name[0]} {limit.spec} {number} {name[2:]}:{slot}")
        return "\n".join(lines)

    def _slot(self, value: object) -> str:
        if isinstance(value, Enum):
            value = value.value
        if not isinstance(value, str | int | UUID) and value is not None:
            raise TaskArgumentsError(
                self._task, "", f"the key of a limit must be text, a whole number or a UUID, got {type(value).__name__}"
            )
        text = str(value)
        if _PLAIN.fullmatch(text) and not text.startswith("#") and text == text.strip():
            return text
        return "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _number(self, limit: Limit, value: object) -> int:
        assert isinstance(limit, RateLimit)
        most = parse_rate(limit.rate)[0] if limit.window is RateWindow.FIXED else LIMIT_MAX
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise TaskArgumentsError(
                self._task, "", f"the cost of a call must be a whole number from 1 to {most}, got {value!r:.80}"
            )
        return value


class _Read:
    """Computes a key or a cost from arguments."""

    def __init__(self, what: str, asked: str | Callable[..., Any]) -> None:
        self.what = what
        self._function = None if isinstance(asked, str) else asked
        self._optional: set[str] = set()
        if isinstance(asked, str):
            self.names: tuple[str, ...] = (asked,)
        else:
            parameters = inspect.signature(asked).parameters
            self.names = tuple(parameters)
            self._optional = {name for name, each in parameters.items() if each.default is not each.empty}

    def __call__(self, task: str, arguments: Mapping[str, object], defaults: Mapping[str, Any]) -> object:
        values = {}
        for name in self.names:
            value = arguments.get(name, defaults.get(name, inspect.Parameter.empty))
            if value is not inspect.Parameter.empty:
                values[name] = value
            elif name not in self._optional:
                raise TaskArgumentsError(task, name, f"the {self.what} of a limit needs it")
        if self._function is None:
            return values[self.names[0]]
        try:
            return self._function(**values)
        except Exception as error:  # whatever a user's function raises, the call is what does not fit
            raise TaskArgumentsError(task, "", f"the {self.what} of a limit failed: {type(error).__name__}") from error


def limit_of(message: bytes) -> str:
    """Return the limits that a stored message carries, "" without limits."""
    if HEADER.encode() not in message:
        return ""
    try:
        return decode_message(message).headers.get(HEADER, "")
    except WireFormatError:
        return ""


def _check_key(what: str, key: Any) -> None:
    if key is None or (isinstance(key, str) and key.isidentifier()):
        return
    if isinstance(key, str) or not callable(key) or inspect.iscoroutinefunction(key):
        raise ConfigurationError(f"{what} must be a parameter's name or a plain function of parameters, got {key!r}")
    try:
        parameters = inspect.signature(key).parameters.values()
    except (ValueError, TypeError):
        raise ConfigurationError(f"{what}: the parameters of {key!r} cannot be read") from None
    if any(each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in parameters):
        raise ConfigurationError(f"{what} must name the parameters it needs, got {key!r}")


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isprintable() or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise ConfigurationError(
            f"the name of a limit must be text of at most {MAX_NAME_BYTES} bytes, got {name!r:.80}"
        )
