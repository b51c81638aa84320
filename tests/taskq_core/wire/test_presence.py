import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.errors import WireFormatError
from taskq_core.wire import asynq_pb2
from taskq_core.wire.presence import (
    GO_ZERO_TIME_S,
    SchedulerEnqueueEvent,
    SchedulerEntry,
    ServerInfo,
    WorkerInfo,
    datetime_of_ns,
    from_timestamp,
    to_timestamp,
)
from tests.rows import rows

ROWS: list[dict[str, Any]] = [
    row
    for row in json.loads((Path(__file__).parents[2] / "golden" / "messages.json").read_text(encoding="utf-8"))
    if row["kind"] != "TaskMessage"
]
RECORDS: dict[str, Any] = {
    "ServerInfo": ServerInfo,
    "WorkerInfo": WorkerInfo,
    "SchedulerEntry": SchedulerEntry,
    "SchedulerEnqueueEvent": SchedulerEnqueueEvent,
}
Record = ServerInfo | WorkerInfo | SchedulerEntry | SchedulerEnqueueEvent


def record_of(row: dict[str, Any]) -> Record:
    """The record of a row; a running task's payload has no place in it."""
    fields: dict[str, Any] = {}
    for name, value in row["message"].items():
        if isinstance(value, dict) and "seconds" in value:
            zero = value["seconds"] == GO_ZERO_TIME_S
            fields[f"{name}_ns"] = None if zero else value["seconds"] * 10**9 + value["nanos"]
        elif name == "task_payload":
            if row["kind"] == "SchedulerEntry":
                fields[name] = bytes.fromhex(value or "")
        elif name == "enqueue_options":
            fields[name] = tuple(value)
        elif name == "queues":
            fields[name] = value or {}
        else:
            fields[name] = value
    record: Record = RECORDS[row["kind"]](**fields)
    return record


@rows("row", ROWS, ids=lambda row: f"{row['kind']}: {row['name']}")
def test_records_are_written_as_in_go(row: dict[str, Any]) -> None:
    encoded = record_of(row).encode()

    if row["kind"] == "WorkerInfo" and row["message"]["task_payload"]:
        stored = asynq_pb2.WorkerInfo.FromString(bytes.fromhex(row["hex"]))
        stored.ClearField("task_payload")  # left out on purpose: heartbeats must not contain users' data
        assert encoded == stored.SerializeToString(deterministic=True)
    elif row.get("map_order_free"):
        assert asynq_pb2.ServerInfo.FromString(encoded) == asynq_pb2.ServerInfo.FromString(bytes.fromhex(row["hex"]))
    else:
        assert encoded.hex() == row["hex"]


@rows("row", ROWS, ids=lambda row: f"{row['kind']}: {row['name']}")
def test_records_of_go_are_read(row: dict[str, Any]) -> None:
    assert RECORDS[row["kind"]].decode(bytes.fromhex(row["hex"])) == record_of(row)


@rows("row", ROWS, ids=lambda row: f"{row['kind']}: {row['name']}")
def test_the_messages_keep_every_field_of_go(row: dict[str, Any]) -> None:
    """This includes the payload of a running task, which taskq's own records omit."""
    message = getattr(asynq_pb2, row["kind"])
    data = bytes.fromhex(row["hex"])

    encoded = message.FromString(data).SerializeToString(deterministic=True)

    assert len(encoded) == len(data)
    assert message.FromString(encoded) == message.FromString(data)
    if not row.get("map_order_free"):
        assert encoded == data


def test_all_measured_records_are_covered() -> None:
    assert len(ROWS) == 22


@rows("record", list(RECORDS.values()))
@rows("data", [b"\x0a\x05t", b"\x0a\x01\xff", b"\x00\x00"])
def test_unreadable_bytes_raise_a_taskq_error(record: Any, data: bytes) -> None:
    with pytest.raises(WireFormatError, match=f"bytes are not a {record.__name__}"):
        record.decode(data)


@pytest.mark.parametrize("record", list(RECORDS.values()))
@given(data=st.binary(max_size=100))
def test_any_bytes_are_read_or_refused_with_a_taskq_error(record: Any, data: bytes) -> None:
    try:
        decoded = record.decode(data)
    except WireFormatError:
        return
    assert isinstance(decoded, record)


def test_a_field_that_does_not_fit_is_refused() -> None:
    with pytest.raises(WireFormatError, match="cannot encode a ServerInfo"):
        ServerInfo(host="h\ud800", pid=1, server_id="s", concurrency=1).encode()
    with pytest.raises(WireFormatError, match="cannot encode a ServerInfo"):
        ServerInfo(host="h", pid=2**31, server_id="s", concurrency=1).encode()


def test_a_missing_time_reads_as_none() -> None:
    assert SchedulerEnqueueEvent.decode(b"\x0a\x01t") == SchedulerEnqueueEvent(task_id="t")


def test_a_scheduled_payload_is_not_shown() -> None:
    entry = SchedulerEntry(id="e", spec="@daily", task_type="t", task_payload=b"secret")

    assert "secret" not in repr(entry)


def test_none_is_the_zero_time_of_go() -> None:
    assert to_timestamp(None).seconds == GO_ZERO_TIME_S
    assert from_timestamp(to_timestamp(None)) is None
    assert datetime_of_ns(GO_ZERO_TIME_S * 10**9) == datetime(1, 1, 1, tzinfo=UTC)


@given(st.integers(-(10**18), 10**19))
def test_nanoseconds_survive(ns: int) -> None:
    assert from_timestamp(to_timestamp(ns)) == ns


@given(st.datetimes(timezones=st.just(UTC)))
def test_datetimes_survive_as_nanoseconds(moment: datetime) -> None:
    assert datetime_of_ns((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000) == moment


@rows("ns", [10**21, -(10**21), 10**40])
def test_a_time_beyond_the_calendar_is_refused(ns: int) -> None:
    with pytest.raises(WireFormatError, match="years 1 to 9999"):
        datetime_of_ns(ns)


def test_a_time_beyond_64_bits_is_refused() -> None:
    with pytest.raises(WireFormatError, match="64 bits of seconds"):
        to_timestamp(10**30)
