import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.errors import WireFormatError
from taskq_core.wire.asynq_pb2 import TaskMessage
from taskq_core.wire.messages import (
    MAX_ERROR_BYTES,
    MessageTemplate,
    archived_message,
    build_message,
    clean_text,
    completed_message,
    decode_message,
    encode_headers,
    encode_message,
    retried_message,
)
from tests.rows import rows

ROWS: list[dict[str, Any]] = [
    row
    for row in json.loads((Path(__file__).parents[2] / "golden" / "messages.json").read_text(encoding="utf-8"))
    if row["kind"] == "TaskMessage"
]
ENCODED = [row for row in ROWS if not row.get("decode_only") and row["hex"] is not None]
REFUSED = [row for row in ROWS if not row.get("decode_only") and row["hex"] is None]
DECODED = [row for row in ROWS if row.get("decode_only") and "error" not in row]
UNREADABLE = [row for row in ROWS if row.get("decode_only") and "error" in row]

REFUSED_THOUGH_GO_WRAPS = {
    "retry 2^31 wraps to int32": "a wrapped count is negative, and the task would never be retried",
    "retry 2^32+7 wraps to int32": "a wrapped count is not what the caller asked for",
}
KEPT_THOUGH_GO_DROPS = {
    "decode: unknown field 99 varint is dropped on re-encode": "unknown fields survive a rewrite",
    "decode: unknown field 16 bytes is dropped on re-encode": "unknown fields survive a rewrite",
    "decode: wrong wire type for field 1 is ignored": "protobuf keeps it as an unknown field",
}
# Fields that a new task never has, so a template cannot write them.
SETTLED_FIELDS = ("retried", "error_msg", "last_failed_at", "completed_at")


def by_name(table: list[dict[str, Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return rows("row", table, ids=lambda row: row["name"])


def fields_of(message: TaskMessage) -> dict[str, Any]:
    fields: dict[str, Any] = {field.name: getattr(message, field.name) for field in TaskMessage.DESCRIPTOR.fields}
    return fields | {"headers": dict(message.headers), "payload": message.payload.hex() or None}


def given_fields(row: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = row["message"]
    payload = fields["payload"]
    return fields | {"payload": None if payload is None else bytes.fromhex(payload)}


def template_of(fields: dict[str, Any]) -> MessageTemplate:
    names = ("type", "queue", "retry", "timeout", "deadline", "retention", "group_key")
    return MessageTemplate(**{name: fields[name] for name in names})


@by_name(ENCODED)
def test_messages_are_written_as_in_go(row: dict[str, Any]) -> None:
    fields = given_fields(row)
    if row["name"] in REFUSED_THOUGH_GO_WRAPS:
        with pytest.raises(WireFormatError):
            build_message(**fields)
        return

    encoded = encode_message(build_message(**fields))

    if row.get("map_order_free"):
        assert decode_message(encoded) == decode_message(bytes.fromhex(row["hex"]))
        assert len(encoded) == len(row["hex"]) // 2
    else:
        assert encoded.hex() == row["hex"]


@by_name([row for row in ENCODED if not any(row["message"][name] for name in SETTLED_FIELDS)])
def test_templates_write_as_in_go(row: dict[str, Any]) -> None:
    fields = given_fields(row)
    if row["name"] in REFUSED_THOUGH_GO_WRAPS:
        with pytest.raises(WireFormatError, match="retry must fit 32 bits"):
            template_of(fields)
        return

    encoded = template_of(fields).encode(
        fields["id"], fields["payload"], encode_headers(fields["headers"]), fields["unique_key"]
    )

    if row.get("map_order_free"):
        assert decode_message(encoded) == decode_message(bytes.fromhex(row["hex"]))
        assert len(encoded) == len(row["hex"]) // 2
    else:
        assert encoded.hex() == row["hex"]


@by_name(ENCODED)
def test_messages_of_go_are_read(row: dict[str, Any]) -> None:
    expected = row["message"] | {"payload": row["message"]["payload"] or None}
    if row["name"] in REFUSED_THOUGH_GO_WRAPS:
        expected["retry"] = (expected["retry"] + 2**31) % 2**32 - 2**31

    assert fields_of(decode_message(bytes.fromhex(row["hex"]))) == expected


def surrogates(value: str) -> str:
    return bytes.fromhex(value).decode(errors="surrogateescape")


@by_name(REFUSED)
def test_text_that_go_refuses_is_refused(row: dict[str, Any]) -> None:
    """Python's form of invalid UTF-8 is a lone surrogate."""
    fields: dict[str, Any] = {
        name: {surrogates(k): surrogates(v) for k, v in value.items()} if isinstance(value, dict) else surrogates(value)
        for name, value in row["message"].items()
    }

    with pytest.raises(WireFormatError):
        build_message(**fields)

    if "error_msg" not in fields:  # a template has none; the text of a failure is cleaned instead
        complete = {"type": "t", "queue": "q", "group_key": "", "retry": 0, "timeout": 0, "deadline": 0, "retention": 0}
        with pytest.raises(WireFormatError, match="lone surrogate"):
            template_of(complete | fields).encode(
                fields.get("id", "i"), None, encode_headers(fields.get("headers", {}))
            )


@by_name(DECODED)
def test_odd_bytes_are_read_as_in_go(row: dict[str, Any]) -> None:
    message = decode_message(bytes.fromhex(row["hex"]))

    assert fields_of(message) == row["message"]
    if row["name"] in KEPT_THOUGH_GO_DROPS:
        assert len(encode_message(message)) > len(row["reencoded_hex"]) // 2
    else:
        assert encode_message(message).hex() == row["reencoded_hex"]


@by_name(UNREADABLE)
def test_unreadable_bytes_raise_a_taskq_error(row: dict[str, Any]) -> None:
    with pytest.raises(WireFormatError, match="bytes are not a task message"):
        decode_message(bytes.fromhex(row["hex"]))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_taskq_error(data: bytes) -> None:
    try:
        message = decode_message(data)
    except WireFormatError:
        return
    assert decode_message(encode_message(message)) == message


def test_the_listed_differences_are_all_measured_ones() -> None:
    names = {row["name"] for row in ROWS}

    assert set(REFUSED_THOUGH_GO_WRAPS) | set(KEPT_THOUGH_GO_DROPS) <= names
    assert (len(ENCODED), len(REFUSED), len(DECODED) + len(UNREADABLE)) == (38, 6, 22)


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
long_texts = texts | st.sampled_from(["x" * 127, "x" * 128, "\u00e9" * 1100, "x" * 16_384])
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)


@given(
    fields=st.fixed_dictionaries(
        {
            "type": long_texts,
            "queue": long_texts,
            "retry": int32,
            "timeout": int64,
            "deadline": int64,
            "retention": int64,
            "group_key": long_texts,
        }
    ),
    task_id=long_texts,
    payload=st.none() | st.binary(max_size=40) | st.sampled_from([b"p" * 127, b"p" * 2047, b"p" * 2048, b"p" * 70_000]),
    headers=st.dictionaries(long_texts, long_texts, max_size=4),
    unique_key=long_texts,
    deadline=st.none() | int64,
)
def test_a_template_writes_what_protobuf_writes(
    fields: dict[str, Any],
    task_id: str,
    payload: bytes | None,
    headers: dict[str, str],
    unique_key: str,
    deadline: int | None,
) -> None:
    fast = MessageTemplate(**fields).encode(task_id, payload, encode_headers(headers), unique_key, deadline=deadline)

    if deadline is not None:
        fields = fields | {"deadline": deadline}
    slow = TaskMessage(id=task_id, payload=payload or b"", headers=headers, unique_key=unique_key, **fields)
    expected = slow.SerializeToString(deterministic=True)
    if any(a != b and b.startswith(a) for a in headers for b in headers):
        # protobuf's C runtime then writes the longer name first, its Python runtime the shorter, as we do
        assert decode_message(fast) == slow
        assert len(fast) == len(expected)
    else:
        assert fast == expected


def test_headers_are_written_in_the_order_of_their_names() -> None:
    """The order does not depend on the protobuf runtime, also where one name starts another."""
    headers = {"b": "1", "ab": "2", "\u00e9": "3", "a": "4"}

    encoded = MessageTemplate("t", "q").encode("i", None, encode_headers(headers))

    entries = [b"z\x06\x0a\x01a\x12\x014", b"z\x07\x0a\x02ab\x12\x012", b"z\x06\x0a\x01b\x12\x011"]
    assert encoded.endswith(b"".join(entries) + b"z\x07\x0a\x02\xc3\xa9\x12\x013")


@rows(
    ("field", "value", "bits"),
    [("retry", 2**31, 32), ("timeout", 2**63, 64), ("deadline", -(2**63) - 1, 64), ("retention", 2**63, 64)],
)
def test_a_number_that_does_not_fit_is_refused(field: str, value: int, bits: int) -> None:
    numbers: dict[str, Any] = {field: value}

    with pytest.raises(WireFormatError, match=f"{field} must fit {bits} bits"):
        MessageTemplate("t", "q", **numbers)


def test_a_deadline_of_one_task_that_does_not_fit_is_refused() -> None:
    with pytest.raises(WireFormatError, match="deadline must fit 64 bits"):
        MessageTemplate("t", "q").encode("i", None, deadline=2**63)


@rows("fields", [{"retry": "3"}, {"no_such_field": 1}, {"type": 5}])
def test_a_field_that_does_not_fit_is_refused_without_its_value(fields: dict[str, Any]) -> None:
    with pytest.raises(WireFormatError, match="not a task message"):
        build_message(**fields)


STORED = bytes.fromhex("0a03743a61120568656c6c6f1a0469642d61220764656661756c74281940880e")
UNKNOWN = bytes.fromhex("98063f8201026869")  # fields 99 and 16


def golden_bytes(name: str) -> str:
    return next(str(row["hex"]) for row in ROWS if row["name"] == name)


def test_a_retry_is_written_as_in_go() -> None:
    message = decode_message(STORED)

    retried = retried_message(message, error="boom", failed_at_s=2_000_000_000, counts=True)

    assert retried.hex() == golden_bytes("after one retry")
    assert encode_message(message) == STORED


def test_a_failure_that_does_not_count_keeps_the_retries() -> None:
    retried = decode_message(retried_message(decode_message(STORED), error="later", failed_at_s=7, counts=False))

    assert (retried.retried, retried.error_msg, retried.last_failed_at) == (0, "later", 7)


def test_a_count_at_its_limit_stays_there() -> None:
    message = build_message(type="t", retried=2**31 - 1)

    assert decode_message(retried_message(message, error="", failed_at_s=7, counts=True)).retried == 2**31 - 1


def test_an_archived_task_keeps_its_retries() -> None:
    message = build_message(type="t", retried=25)

    archived = decode_message(archived_message(message, error="gone", failed_at_s=7))

    assert (archived.retried, archived.error_msg, archived.last_failed_at) == (25, "gone", 7)


def test_a_completion_is_written_as_in_go() -> None:
    message = decode_message(STORED)
    message.retention = 86_400

    assert completed_message(message, 2_000_000_000).hex() == golden_bytes("after completion")


@rows(
    "change",
    [
        lambda message: retried_message(message, error="e", failed_at_s=1, counts=True),
        lambda message: archived_message(message, error="e", failed_at_s=1),
        lambda message: completed_message(message, 1),
    ],
    ids=["retry", "archive", "complete"],
)
def test_unknown_fields_and_the_payload_survive_a_change(change: Any) -> None:
    payload = bytes(range(256))
    before = encode_message(build_message(type="t", payload=payload, headers={"b": "1", "a": "2"})) + UNKNOWN

    after = change(decode_message(before))

    assert UNKNOWN[:3] in after
    assert UNKNOWN[3:] in after
    assert decode_message(after).payload == payload
    assert dict(decode_message(after).headers) == {"b": "1", "a": "2"}


@rows("error", ["\ud800 half", "e" * 10_000_000, "\u00e9" * 5000, "nul\x00", ""])
def test_no_text_makes_settling_fail(error: str) -> None:
    stored = decode_message(retried_message(decode_message(STORED), error=error, failed_at_s=1, counts=True))

    assert len(stored.error_msg.encode()) <= MAX_ERROR_BYTES


@given(st.text(alphabet=st.characters(), max_size=60), st.integers(3, 40))
def test_cleaned_text_is_valid_and_within_its_limit(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)

    assert len(cleaned.encode()) <= limit
    assert clean_text(cleaned, limit) == cleaned


@rows(
    ("text", "limit", "cleaned"),
    [
        ("plain", 10, "plain"),
        ("exactly-10", 10, "exactly-10"),
        ("more than ten", 10, "more th..."),
        ("a\ud83db", 10, "a\ufffdb"),
        ("\u00e9" * 6, 10, "\u00e9" * 3 + "..."),
    ],
)
def test_text_is_truncated_and_repaired(text: str, limit: int, cleaned: str) -> None:
    assert clean_text(text, limit) == cleaned
