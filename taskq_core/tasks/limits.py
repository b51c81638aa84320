"""Limits of tasks: how many run at the same time, in which order, and how often they start.

Each limit has a name. A limit with a key counts the tasks of each value of the key separately. A task message contains
its limits as text, one line for each limit. The Lua scripts read this text (see `lua/_limits.lua`). A limit applies to
one queue, and all workers of the queue share it.
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
"""How to compute the key of a call: the name of a task parameter, or a function that takes some of its parameters."""
Cost = int | str | Callable[..., Any]
"""Cost of a call: a number, the name of a task parameter, or a function that takes some of its parameters."""

LIMIT_MAX = 1_000_000_000
"""Largest allowed number in a limit: rate, burst, cost or concurrency."""
PERIOD_MAX_S = 31 * 86_400
"""Longest allowed period of a rate, in seconds."""
HEADER = "taskq-limit"
"""Name of the header with the limits of a task, as `Limits.text` returns them. A worker does not compute the limits of
a message that has this header."""
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RATE = re.compile(r"(\d+)/(\d*)(ms|s|m|h|d)")
_PLAIN = re.compile(r"[\x20-\x7e]{1,64}")


class RateWindow(StrEnum):
    """How the starts of a rate limit are counted."""

    BUCKET = "bucket"
    """Token bucket: tokens arrive at a constant rate, and the bucket holds at most `burst` of them. In a time span t,
    at most burst + rate * t tokens are spent."""
    FIXED = "fixed"
    """Fixed window: at most as many tasks in each period as the rate allows. Periods are aligned to the Unix epoch by
    Redis's clock. Around the border of two periods, up to twice as many can start within the length of one period.
    """


class OnFailure(StrEnum):
    """What happens to a sequence when one of its tasks is archived."""

    BLOCK = "block"
    """The next task of the sequence waits until the archived task is retried and succeeds, or is deleted."""
    SKIP = "skip"
    """The next task of the sequence starts."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Limits how many runs start in a period, for all workers of the queue together.

    Attributes:
        rate: Number of starts and period, as "100/m" or "5/10s". Units are ms, s, m, h and d. Number and period are at
            least 1.
        burst: Maximum starts at once with a token bucket. None: the number of starts in a tenth of a second, at least
            1.
        window: How starts are counted.
        key: Each value of the key has a separate limit. None: all calls share one limit.
        cost: Number of starts that one call counts as, at least 1.
        name: Tasks of one queue that use the same name share one limit. "": the limit belongs to this task alone.
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
                raise ConfigurationError("burst needs window='bucket'; with window='fixed' the rate is the burst")
        _check_key("key", self.key)
        if isinstance(self.cost, int):
            check_whole("cost", self.cost, least=1, most=LIMIT_MAX)
            if self.window is RateWindow.FIXED and self.cost > tokens:
                raise ConfigurationError(
                    f"cost is {self.cost}, but the rate {self.rate!r} allows at most {tokens} at once"
                )
        else:
            _check_key("cost", self.cost)
        _check_name(self.name)

    @property
    def spec(self) -> str:
        """The limit in the format of the Lua scripts; see `rate_spec`."""
        return rate_spec(self.rate, self.burst, self.window)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Limits how many runs are active at the same time, for all workers of the queue together.

    Attributes:
        limit: Maximum runs at the same time, at least 1.
        key: Each value of the key has a separate limit. None: all calls share one limit.
        name: Tasks of one queue that use the same name share one limit. "": the limit belongs to this task alone.
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
        """The limit in the format of the Lua scripts."""
        return str(self.limit)


@dataclass(frozen=True, slots=True)
class TaskSequence:
    """Runs the tasks with the same key one at a time, in the order in which they were enqueued or became due.

    While a task waits for a retry, the next task of its sequence does not start.

    Attributes:
        key: Each value of the key has a separate sequence.
        on_failure: What happens to the sequence when one of its tasks is archived.
        name: Tasks of one queue that use the same name share sequences. "": the sequences belong to this task alone.
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
        """The option `on_failure` in the format of the Lua scripts."""
        return str(self.on_failure)


Limit = RateLimit | Concurrency | TaskSequence


def as_rate_limit(value: Any) -> RateLimit | None:
    """Convert a value of the option `rate_limit` to a `RateLimit`. Text is a rate such as "100/m".

    Raises:
        ConfigurationError: The value is not a rate limit.
    """
    if value is None or isinstance(value, RateLimit):
        return value
    if isinstance(value, str):
        return RateLimit(value)
    raise ConfigurationError(f"rate_limit must be a rate such as '100/m' or a RateLimit, got {value!r}")


def as_concurrency(value: Any) -> tuple[Concurrency, ...]:
    """Convert a value of the option `concurrency` to limits: first the limits with a key, then the others.

    A number is one limit for all calls.

    Raises:
        ConfigurationError: The value is not a concurrency limit.
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
            raise ConfigurationError(
                f"concurrency must be a number, a Concurrency, or a tuple of numbers and Concurrency, got {each!r}"
            )
    return tuple(sorted(found, key=lambda each: each.key is None))


def as_sequence(value: Any) -> TaskSequence | None:
    """Convert a value of the option `sequence` to a `TaskSequence`. Text or a function is its key.

    Raises:
        ConfigurationError: The value is not a sequence.
    """
    if value is None or isinstance(value, TaskSequence):
        return value
    if isinstance(value, str) or callable(value):
        return TaskSequence(value)
    raise ConfigurationError(f"sequence must be a parameter's name, a function or a TaskSequence, got {value!r}")


def parse_rate(rate: Any) -> tuple[int, int]:
    """Return the number of starts and the period in milliseconds of a rate such as "100/m".

    Raises:
        ConfigurationError: The text is not a rate, or the number or the period is out of bounds.
    """
    match = _RATE.fullmatch(rate.replace(" ", "")) if isinstance(rate, str) else None
    if match is None:
        raise ConfigurationError(f"rate_limit must be a number and a period such as '100/m' or '5/10s', got {rate!r}")
    tokens, period_ms = int(match[1]), int(match[2] or 1) * _UNITS_MS[match[3]]
    if not 1 <= tokens <= LIMIT_MAX:
        raise ConfigurationError(f"rate_limit must be at least 1 and at most {LIMIT_MAX} in its period, got {rate!r}")
    if not 1 <= period_ms <= PERIOD_MAX_S * 1000:
        raise ConfigurationError(f"rate_limit must have a period from 1 ms to 31 days, got {rate!r}")
    return tokens, period_ms


def rate_spec(rate: str, burst: int | None, window: RateWindow | str) -> str:
    """Return a rate limit in the format of the Lua scripts, such as "b/100/60000/1" or "w/100/60000"."""
    tokens, period_ms = parse_rate(rate)
    if window == RateWindow.FIXED:
        return f"w/{tokens}/{period_ms}"
    return f"b/{tokens}/{period_ms}/{burst or max(1, math.ceil(tokens * 100 / period_ms))}"


def shown_spec(spec: str) -> str:
    """Convert a limit from the format of the Lua scripts to text for display, such as "100/m, 1 at once"."""
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
    """The limits of one task, with their keys and costs bound to the task's parameters.

    Args:
        task: Name of the task.
        limits: Limits of the task.
        defaults: Default values of the task's parameters by name, `inspect.Parameter.empty` for no default. None if the
            parameters are unknown, because the code of the task is in another program.

    Raises:
        ConfigurationError: A key or cost needs a parameter that the task does not have, or two limits have the same
        name.
    """

    def __init__(self, task: str, limits: Iterable[Limit], defaults: Mapping[str, Any] | None) -> None:
        self._task = task
        self._defaults = defaults or {}
        self._bound: list[tuple[str, Limit, _ArgumentReader | None, _ArgumentReader | None]] = []
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
        """Whether a key or a cost depends on the arguments of a call."""
        return any(key is not None or cost is not None for _, _, key, cost in self._bound)

    @property
    def specs(self) -> dict[str, str]:
        """The limits in the format of the Lua scripts, by kind and name, such as "r:shop.charge"."""
        return {name: limit.spec for name, limit, *_ in self._bound}

    def _reader(self, what: str, source: Any, defaults: Mapping[str, Any] | None) -> "_ArgumentReader | None":
        if source is None:
            return None
        read = _ArgumentReader(what, source)
        unknown = [] if defaults is None else [each for each in read.names if each not in defaults]
        if unknown:
            raise ConfigurationError(
                f"{what} needs the parameter {unknown[0]!r}, which the task does not have; "
                f"parameters of the task: {', '.join(defaults or ()) or 'none'}"
            )
        return read

    def text(self, arguments: Mapping[str, object]) -> str:
        """Return the value of the limits header for a call with these arguments.

        Raises:
            TaskArgumentsError: A key or a cost cannot be computed from the arguments.
        """
        lines = []
        for name, limit, key, cost in self._bound:
            slot = "" if key is None else self._key_text(key(self._task, arguments, self._defaults))
            number = 1
            if cost is not None:
                number = self._number(limit, cost(self._task, arguments, self._defaults))
            elif isinstance(limit, RateLimit):
                assert isinstance(limit.cost, int)
                number = limit.cost
            lines.append(f"{name[0]} {limit.spec} {number} {name[2:]}:{slot}")
        return "\n".join(lines)

    def _key_text(self, value: object) -> str:
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


class _ArgumentReader:
    """Computes the key or the cost of a limit from the arguments of a call."""

    def __init__(self, what: str, source: str | Callable[..., Any]) -> None:
        self.what = what
        self._function = None if isinstance(source, str) else source
        self._optional: set[str] = set()
        if isinstance(source, str):
            self.names: tuple[str, ...] = (source,)
        else:
            parameters = inspect.signature(source).parameters
            self.names = tuple(parameters)
            self._optional = {name for name, each in parameters.items() if each.default is not each.empty}

    def __call__(self, task: str, arguments: Mapping[str, object], defaults: Mapping[str, Any]) -> object:
        values = {}
        for name in self.names:
            value = arguments.get(name, defaults.get(name, inspect.Parameter.empty))
            if value is not inspect.Parameter.empty:
                values[name] = value
            elif name not in self._optional:
                raise TaskArgumentsError(task, name, f"missing, but the {self.what} of a limit needs it")
        if self._function is None:
            return values[self.names[0]]
        try:
            return self._function(**values)
        except Exception as error:  # the user's function may raise any error
            raise TaskArgumentsError(task, "", f"the {self.what} of a limit failed: {type(error).__name__}") from error


def limit_of(message: bytes) -> str:
    """Return the limits header of a stored message, "" if it has no limits."""
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
