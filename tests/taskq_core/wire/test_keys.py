import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.errors import ConfigurationError
from taskq_core.wire.keys import (
    Keys,
    QueueKeys,
    validate_group_name,
    validate_prefix,
    validate_queue_name,
    validate_task_id,
    validate_task_type,
)
from tests.rows import rows

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "keys.json").read_text(encoding="utf-8"))

REFUSED_THOUGH_GO_TAKES_THEM = {
    "}": "an empty hash tag spreads the queue over several cluster slots",
    "}x": "an empty hash tag spreads the queue over several cluster slots",
    "new\nline": "a control character breaks log lines and terminals",
    "tab\t": "a control character breaks log lines and terminals",
    "null\x00byte": "a control character breaks log lines and terminals",
    "q" * 300: "longer than 256 bytes",
}
REFUSED_IDS_THOUGH_GO_TAKES_THEM = {"x\ny": "a control character breaks log lines and terminals"}


def named(keys: QueueKeys) -> dict[str, str]:
    roles = (
        "active aggregation_sets archived completed failed group_prefix groups lease paused pending prefix processed "
        "retry scheduled task_prefix"
    )
    return {role: getattr(keys, role) for role in roles.split()} | {
        "aggregation_set(g,s)": keys.aggregation_set("g", "s"),
        "failed(2033-05-18)": keys.daily_failed(date(2033, 5, 18)),
        "group(g)": keys.group("g"),
        "processed(2033-05-18)": keys.daily_processed(date(2033, 5, 18)),
        "task(id-1)": keys.task("id-1"),
    }


def own_keys(keys: QueueKeys) -> set[str]:
    return {
        keys.wake,
        keys.quarantine,
        keys.done,
        keys.absent,
        keys.receipt("c1"),
        keys.call("w1"),
        keys.leader("forwarder"),
        keys.peers("host"),
        keys.combined,
        keys.combined_set("s"),
        keys.quarantined("id-1"),
    }


def test_global_keys_match_go() -> None:
    keys = Keys()

    built = {
        "cancel_channel": keys.cancel,
        "default_queue_pending": keys.queue("default").pending,
        "queues": keys.queues,
        "scheduler_history(e1)": keys.scheduler_history("e1"),
        "schedulers": keys.schedulers,
        "servers": keys.servers,
        "workers": keys.workers,
    }

    assert built == GOLDEN["global"]


@rows("row", GOLDEN["queues"], ids=lambda row: ascii(row["queue"])[:30])
def test_queue_keys_match_go(row: dict[str, Any]) -> None:
    assert named(Keys().queue(row["queue"])) == row["keys"]


@rows("row", GOLDEN["tasks"], ids=lambda row: ascii(row["key"]))
def test_task_keys_match_go(row: dict[str, Any]) -> None:
    assert Keys().queue(row["queue"]).task(row["id"]) == row["key"]


@rows("row", GOLDEN["groups"], ids=lambda row: ascii(row["key"]))
def test_group_keys_match_go(row: dict[str, Any]) -> None:
    keys = Keys().queue(row["queue"])

    assert keys.group(row["group"]) == row["key"]
    assert keys.aggregation_set(row["group"], row["set_id"]) == row["set_key"]


@rows("row", GOLDEN["unique"], ids=lambda row: ascii(row["key"]))
def test_unique_locks_match_go(row: dict[str, Any]) -> None:
    payload = None if row["payload"] is None else bytes.fromhex(row["payload"])
    if repeat := row.get("payload_repeat"):
        payload = bytes.fromhex(repeat["byte"]) * repeat["count"]

    assert Keys().queue(row["queue"]).unique(row["type"], payload) == row["key"]


@rows("row", GOLDEN["unique_ttl"], ids=lambda row: f"{row['operation']} {row['option']}")
def test_the_unique_lock_of_a_timed_task_has_the_same_name(row: dict[str, Any]) -> None:
    assert Keys().queue("default").unique("t:u", b"p") == row["key"]


@rows("row", GOLDEN["daily"], ids=lambda row: row["time"])
def test_daily_counters_are_named_by_the_utc_date(row: dict[str, Any]) -> None:
    keys = Keys().queue("default")
    moment = datetime.fromtimestamp(row["unix_s"], tz=timezone(timedelta(hours=9)))

    for day in (row["unix_s"], row["unix_s"] + 0.5, moment, moment.astimezone(UTC).date()):
        assert keys.daily_processed(day) == row["processed"]
        assert keys.daily_failed(day) == row["failed"]


def test_a_naive_datetime_names_no_day() -> None:
    naive = datetime(2033, 5, 18)  # noqa: DTZ001 - the case under test

    with pytest.raises(ValueError, match="naive"):
        Keys().queue("default").daily_processed(naive)


@rows("row", GOLDEN["processes"], ids=lambda row: row["host"])
def test_process_keys_match_go(row: dict[str, Any]) -> None:
    keys, process = Keys(), (row["host"], row["pid"], row["server_id"])

    assert keys.server(*process) == row["server_key"]
    assert keys.workers_of(*process) == row["workers_key"]
    assert keys.scheduler(*process) == row["scheduler_key"]


@rows("row", GOLDEN["queue_name_validation"] + GOLDEN["queues"], ids=lambda row: ascii(row["queue"]))
def test_queue_names_are_checked_as_in_go_except_the_listed_ones(row: dict[str, Any]) -> None:
    """The client accepts the same names as Go, except the names that the list above explains."""
    name = row["queue"]

    if row["valid"] and name not in REFUSED_THOUGH_GO_TAKES_THEM:
        assert validate_queue_name(name) == name
    else:
        with pytest.raises(ConfigurationError, match="queue name"):
            validate_queue_name(name)


def test_the_listed_differences_are_all_measured_ones() -> None:
    assert set(REFUSED_THOUGH_GO_TAKES_THEM) <= {row["queue"] for row in GOLDEN["queues"]}


@rows("task_id", sorted({row["id"] for row in GOLDEN["tasks"]}))
def test_task_ids_are_checked_as_in_go_except_the_listed_ones(task_id: str) -> None:
    if task_id in REFUSED_IDS_THOUGH_GO_TAKES_THEM:
        with pytest.raises(ConfigurationError, match="task id must not contain a control character"):
            validate_task_id(task_id)
    else:
        assert validate_task_id(task_id) == task_id


@rows("check", [validate_queue_name, validate_task_id, validate_task_type, validate_group_name, validate_prefix])
@rows(
    ("value", "problem"),
    [
        ("", "must not be blank, got ''"),
        (" \u2003", "must not be blank"),
        ("a\x7f", "must not contain a control character"),
        ("a\u0085b", "must not contain a control character"),
        ("a\ud800", "must be valid UTF-8"),
        ("x" * 257, "must be at most 256 bytes, got 257"),
        ("\u00e9" * 129, "must be at most 256 bytes, got 258"),
        (7, "must be a string, got int"),
    ],
)
def test_unusable_names_are_refused_with_the_value(check: Any, value: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(value)

    assert problem in str(caught.value)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_a_name_of_256_bytes_is_the_longest() -> None:
    assert validate_queue_name("\u00e9" * 128) == "\u00e9" * 128


@rows("prefix", ["{a}", "a}", "taskq", "my:taskq"])
def test_a_prefix_that_could_mix_keys_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="key prefix must not"):
        Keys(prefix)


def test_keys_of_taskq_have_a_separate_prefix() -> None:
    keys = Keys().queue("low")

    assert own_keys(keys) == {
        "taskq:{low}:wake",
        "taskq:{low}:quarantine",
        "taskq:{low}:done",
        "taskq:{low}:absent",
        "taskq:{low}:rcpt:c1",
        "taskq:{low}:call:w1",
        "taskq:{low}:leader:forwarder",
        "taskq:{low}:peers:host",
        "taskq:{low}:combined",
        "taskq:{low}:combined:s",
        "taskq:{low}:quarantine:id-1",
    }


def test_two_prefixes_never_share_a_key() -> None:
    built = [Keys(prefix).queue("q") for prefix in ("asynq", "staging", "x:asynq")]

    every = [key for keys in built for key in own_keys(keys) | set(named(keys).values())]

    assert len(every) == len(set(every))
    assert built[1].wake == "staging:taskq:{q}:wake"
    assert built[1].pending == "staging:{q}:pending"


def test_the_keys_of_a_queue_are_built_once() -> None:
    keys = Keys()

    assert keys.queue("a") is keys.queue("a")


def test_a_flood_of_names_does_not_grow_memory() -> None:
    keys = Keys()

    for number in range(5000):
        keys.queue(f"q{number}")

    assert len(keys._queues) <= 1024


@given(st.text(min_size=1, max_size=300))
def test_a_valid_queue_name_maps_to_one_slot(name: str) -> None:
    """Every key of a queue that passes the check has the same hash tag, and it is not empty."""
    try:
        validate_queue_name(name)
    except ConfigurationError:
        return
    keys = Keys("p").queue(name)

    tags = {
        key[key.index("{") + 1 : key.index("}", key.index("{"))] for key in own_keys(keys) | set(named(keys).values())
    }

    assert len(tags) == 1
    assert tags != {""}


def test_a_huge_name_is_truncated_in_the_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        validate_task_id("\x00" * 1_000_000)

    assert len(str(caught.value)) < 200


def test_scheduler_keys_of_taskq_have_the_prefix() -> None:
    """The marker of an entry is in the slot of its queue. The lease of a set of entries is a separate key."""
    assert Keys().queue("low").tick("e:1") == "taskq:{low}:tick:e:1"
    assert Keys("other").queue("low").tick("e:1") == "other:taskq:{low}:tick:e:1"
    assert Keys().scheduler_leader("d") == "taskq:scheduler:leader:d"
    assert Keys("other").scheduler_leader("d") == "other:taskq:scheduler:leader:d"
