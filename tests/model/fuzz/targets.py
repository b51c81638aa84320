"""What is fuzzed: each target takes any bytes and lets nothing through but the errors that it is said to raise.

Where the bytes are taken, what was read has to survive being written and read again.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from taskq_core.broker.connection import parse_url
from taskq_core.codec import ArgumentsCodec, decode_payload, decode_result, encode_result
from taskq_core.errors import (
    ConfigurationError,
    PayloadError,
    ResultValueError,
    TaskArgumentsError,
    WireFormatError,
)
from taskq_core.settings import Settings
from taskq_core.telemetry.propagation import HEADERS_LIMIT, check_headers, extract, fit, headers_size, trace_headers
from taskq_core.wire import (
    Keys,
    SchedulerEnqueueEvent,
    SchedulerEntry,
    ServerInfo,
    TaskMessage,
    WorkerInfo,
    archived_message,
    completed_message,
    decode_message,
    encode_message,
    format_duration,
    format_option,
    parse_duration,
    parse_option,
    retried_message,
    validate_entry_id,
    validate_group_name,
    validate_prefix,
    validate_queue_name,
    validate_scope,
    validate_task_id,
    validate_task_type,
)
from taskq_core.wire.cron import parse_schedule
from taskq_core.wire.quoting import quote, unquote
from taskq_core.wire.slots import key_slot

Target = Callable[[bytes], None]


def _text(data: bytes) -> str:
    """Text as a program may have got it: bytes that are no UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _check_wording(error: Exception) -> None:
    """What a person reads in one line of a log."""
    assert len(str(error)) < 1000
    assert str(error).isprintable()


# --- what stands in Redis ---------------------------------------------------------------------------------------------

_CHANGED = ("error_msg", "last_failed_at", "retried", "completed_at")


def message(data: bytes) -> None:
    """A task's message. Whoever rewrites it keeps what it does not know."""
    try:
        read = decode_message(data)
    except WireFormatError:
        return
    written = encode_message(read)
    again = decode_message(written)
    assert again == read or "nan" in str(read)
    assert encode_message(again) == written, "it is not written the same way twice"
    rewritten = (
        retried_message(read, error=_text(data), failed_at_s=1, counts=True),
        archived_message(read, error=_text(data), failed_at_s=1),
        completed_message(read, 1),
    )
    for each in rewritten:
        assert _rest(decode_message(each)) == _rest(read), "a rewrite changed or lost a field"
        assert len(each) <= len(written) + 5000


def _rest(read: TaskMessage) -> bytes:
    copy = TaskMessage()
    copy.CopyFrom(read)
    for name in _CHANGED:
        copy.ClearField(name)
    return encode_message(copy)


def _record(kind: Any) -> Target:
    def target(data: bytes) -> None:
        try:
            read = kind.decode(data)
        except WireFormatError:
            return
        try:
            written = read.encode()
        except WireFormatError:
            return  # a time that Go writes and the format allows, beyond what is kept in 64 bits of nanoseconds
        assert kind.decode(written) == read

    return target


def option(data: bytes) -> None:
    """An option of a periodic entry, as Go's scheduler prints it."""
    read = parse_option(_text(data))
    if read is not None:
        assert parse_option(format_option(read)) == read


def duration(data: bytes) -> None:
    try:
        ns = parse_duration(_text(data))
    except WireFormatError:
        return
    assert parse_duration(format_duration(ns)) == ns


def quoted(data: bytes) -> None:
    """Text in Go's quotes."""
    text = data.decode("utf-8", "replace")
    assert unquote(quote(text)) == text
    try:
        read = unquote(text)
    except WireFormatError:
        return
    assert unquote(quote(read)) == read


_VALIDATORS = {
    "queue": validate_queue_name,
    "task id": validate_task_id,
    "type": validate_task_type,
    "group": validate_group_name,
    "scope": validate_scope,
    "entry": validate_entry_id,
    "prefix": validate_prefix,
}


def names(data: bytes) -> None:
    """A name is taken as it is or refused; a queue that is taken stands on one slot of a cluster, with all its keys."""
    text = _text(data)
    taken = set()
    for name, validate in _VALIDATORS.items():
        try:
            assert validate(text) == text
            taken.add(name)
        except ConfigurationError as error:
            _check_wording(error)
    prefix = text if "prefix" in taken else "asynq"
    if "queue" in taken:
        queue = Keys(prefix).queue(text)
        keys = (queue.pending, queue.task("a}{b"), queue.group("{x}"), queue.unique("t", b""), queue.wake)
        assert len({key_slot(key) for key in keys}) == 1


# --- what people and programs write -----------------------------------------------------------------------------------

_SECRET = re.compile(r"[^:]*://[^/?:]*:([^/?]{6,})@")


def url(data: bytes) -> None:
    """The broker's URL. Whatever is wrong with it, its password is not shown."""
    text = _text(data)
    try:
        shown = str(parse_url(text))
    except ConfigurationError as error:
        shown = str(error)
    secret = _SECRET.match(text)
    if secret and not text.startswith("embedded:") and text.count(secret[1]) == 1:
        assert secret[1] not in shown


def environment(data: bytes) -> None:
    """Settings in variables of the environment, one a line."""
    lines = [line.partition("=") for line in _text(data).replace("\0", "").splitlines()]
    environ = {f"TASKQ_{name}": value for name, _, value in lines}
    try:
        settings = Settings.from_mapping({}, environ=environ)
    except ConfigurationError:
        return
    assert settings == Settings.from_mapping({}, environ=environ)


def settings(data: bytes) -> None:
    """Settings in a dict, as JSON."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(values, dict):
        return
    try:
        read = Settings.from_mapping(values)
    except ConfigurationError:
        return
    assert repr(read) == repr(Settings.from_mapping(values))  # by their looks: NaN, which JSON has, equals nothing


_MOMENTS = (0, 1_711_846_800, 1_709_164_800, 4_102_444_800)


def cron(data: bytes) -> None:
    """When an entry fires: later and later, and the same when it is read back."""
    try:
        schedule = parse_schedule(_text(data))
    except ConfigurationError:
        return
    again = parse_schedule(schedule.text)
    for moment_s in _MOMENTS:
        for _ in range(3):
            fires = schedule.next_after(moment_s)
            assert fires == again.next_after(moment_s)
            if fires is None:
                break
            assert fires > moment_s
            moment_s = fires


# --- what comes with a task -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    x: int
    y: float = 0.0


def _mixed(
    text: str, number: int = 0, when: datetime | None = None, tags: list[str] | None = None, point: _Point | None = None
) -> None: ...


def _exact(amount: Decimal, ident: UUID, raw: bytes = b"", pause: timedelta | None = None) -> None: ...


def _open(value: Any = None, mapping: dict[str, Any] | None = None, either: int | str = 0) -> None: ...


def _nothing() -> None: ...


_CODECS = [
    ArgumentsCodec(function, name=function.__name__, strict=strict)
    for function in (_mixed, _exact, _open, _nothing)
    for strict in (False, True)
]


def payload(data: bytes) -> None:
    """The arguments of a call, read by signatures that they fit or not. What was read is written and read the same."""
    for codec in _CODECS:
        try:
            read = codec.decode(data)
        except PayloadError as error:
            _check_wording(error)
            continue
        try:
            written = codec.encode((), read)
        except TaskArgumentsError:
            assert codec.name == "_open", "what was read cannot be written"  # deep, or a number too large
            continue
        assert repr(codec.decode(written)) == repr(read)  # by their looks: a Decimal may be no number
    with suppress(PayloadError):
        decode_payload(data, Any, task="t")


def result(data: bytes) -> None:
    for type_ in (Any, int, list[_Point], dict[str, float]):
        try:
            read = decode_result(data, type_)
        except ResultValueError as error:
            _check_wording(error)
            continue
        try:
            written = encode_result(read)
        except ResultValueError:
            assert type_ is Any
            continue
        assert decode_result(written, type_) == read


def headers(data: bytes) -> None:
    """A message's headers, one a line: the trace in them is read or left out, and what is written on fits.

    They are valid UTF-8, as in every message that can be read. A lone surrogate would reach the log of the propagator,
    and pytest-xdist cannot pass that on.
    """
    found = dict(line.partition("=")[::2] for line in data.decode("utf-8", "replace").splitlines())
    context = extract(found)
    onward: dict[str, str] = {}
    fit(onward, trace_headers(context))
    assert headers_size(onward) <= HEADERS_LIMIT
    try:
        own = check_headers(found)
    except ConfigurationError as error:
        _check_wording(error)
        return
    assert own == headers_size(found)


TARGETS: Mapping[str, Target] = {
    "message": message,
    "server": _record(ServerInfo),
    "worker": _record(WorkerInfo),
    "entry": _record(SchedulerEntry),
    "event": _record(SchedulerEnqueueEvent),
    "option": option,
    "duration": duration,
    "quoted": quoted,
    "names": names,
    "url": url,
    "environment": environment,
    "settings": settings,
    "cron": cron,
    "payload": payload,
    "result": result,
    "headers": headers,
}
