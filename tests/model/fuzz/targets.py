"""Fuzz targets. Each target parses any bytes, and may raise only the documented errors.

If the bytes are accepted, the parsed value must stay the same when it is written and read again.
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
    """Decode bytes as Python decodes file names: bytes that are not UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _check_one_line(error: Exception) -> None:
    """Check that the error message is short and printable, so that it fits into a line of a log."""
    assert len(str(error)) < 1000
    assert str(error).isprintable()


# --- data in Redis ----------------------------------------------------------------------------------------------------

_CHANGED = ("error_msg", "last_failed_at", "retried", "completed_at")


def message(data: bytes) -> None:
    """Decode a task's message. A rewrite keeps unknown fields."""
    try:
        read = decode_message(data)
    except WireFormatError:
        return
    written = encode_message(read)
    again = decode_message(written)
    assert again == read or "nan" in str(read)
    assert encode_message(again) == written, "two encodings differ"
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
            return  # the format allows times that do not fit into 64 bits of nanoseconds
        assert kind.decode(written) == read

    return target


def option(data: bytes) -> None:
    """Parse an option of a periodic entry in the format of Go's scheduler."""
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
    """Parse a quoted string of Go."""
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
    """A name is accepted unchanged or refused. All keys of an accepted queue are in one slot of a cluster."""
    text = _text(data)
    taken = set()
    for name, validate in _VALIDATORS.items():
        try:
            assert validate(text) == text
            taken.add(name)
        except ConfigurationError as error:
            _check_one_line(error)
    prefix = text if "prefix" in taken else "asynq"
    if "queue" in taken:
        queue = Keys(prefix).queue(text)
        keys = (queue.pending, queue.task("a}{b"), queue.group("{x}"), queue.unique("t", b""), queue.wake)
        assert len({key_slot(key) for key in keys}) == 1


# --- settings and schedules -------------------------------------------------------------------------------------------

_SECRET = re.compile(r"[^:]*://[^/?:]*:([^/?]{6,})@")


def url(data: bytes) -> None:
    """Parse the broker's URL. The password is never shown, also not in errors."""
    text = _text(data)
    try:
        shown = str(parse_url(text))
    except ConfigurationError as error:
        shown = str(error)
    secret = _SECRET.match(text)
    if secret and not text.startswith("embedded:") and text.count(secret[1]) == 1:
        assert secret[1] not in shown


def environment(data: bytes) -> None:
    """Read settings from environment variables, one per line."""
    lines = [line.partition("=") for line in _text(data).replace("\0", "").splitlines()]
    environ = {f"TASKQ_{name}": value for name, _, value in lines}
    try:
        settings = Settings.from_mapping({}, environ=environ)
    except ConfigurationError:
        return
    assert settings == Settings.from_mapping({}, environ=environ)


def settings(data: bytes) -> None:
    """Read settings from a dict in JSON."""
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
    assert repr(read) == repr(Settings.from_mapping(values))  # repr, because NaN does not equal itself


_MOMENTS = (0, 1_711_846_800, 1_709_164_800, 4_102_444_800)


def cron(data: bytes) -> None:
    """Each next firing is later, and a schedule that is parsed from its own text fires at the same times."""
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


# --- arguments, results and headers of tasks --------------------------------------------------------------------------


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
    """Decode arguments for several signatures, which may not match. Decoded arguments survive another round trip."""
    for codec in _CODECS:
        try:
            read = codec.decode(data)
        except PayloadError as error:
            _check_one_line(error)
            continue
        try:
            written = codec.encode((), read)
        except TaskArgumentsError:
            assert codec.name == "_open", (
                "the arguments cannot be encoded again"
            )  # nested too deeply, or a number is too large
            continue
        assert repr(codec.decode(written)) == repr(read)  # repr, because Decimal("NaN") does not equal itself
    with suppress(PayloadError):
        decode_payload(data, Any, task="t")


def result(data: bytes) -> None:
    for type_ in (Any, int, list[_Point], dict[str, float]):
        try:
            read = decode_result(data, type_)
        except ResultValueError as error:
            _check_one_line(error)
            continue
        try:
            written = encode_result(read)
        except ResultValueError:
            assert type_ is Any
            continue
        assert decode_result(written, type_) == read


def headers(data: bytes) -> None:
    """Read the trace context from headers, one per line. Headers that are passed on fit the size limit.

    The headers are valid UTF-8, as in every readable message. The propagator would log a lone surrogate, which
    pytest-xdist cannot transfer.
    """
    found = dict(line.partition("=")[::2] for line in data.decode("utf-8", "replace").splitlines())
    context = extract(found)
    onward: dict[str, str] = {}
    fit(onward, trace_headers(context))
    assert headers_size(onward) <= HEADERS_LIMIT
    try:
        own = check_headers(found)
    except ConfigurationError as error:
        _check_one_line(error)
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
