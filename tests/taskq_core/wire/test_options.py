import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.errors import WireFormatError
from taskq_core.wire.options import Option, OptionKind, OptionValue, format_option, parse_option
from taskq_core.wire.quoting import quote, unquote
from tests.rows import rows

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "options.json").read_text(encoding="utf-8"))


def option_of(row: dict[str, Any]) -> Option:
    kind, argument = OptionKind(row["option"]), row["argument"]
    value: OptionValue = tuple(argument) if isinstance(argument, list) else argument
    if kind in (OptionKind.DEADLINE, OptionKind.PROCESS_AT):
        moment = datetime.fromisoformat(argument)
        zone = row["string"].split()[-2]  # the file gives the offset only; Go printed the zone's name
        offset = moment.utcoffset() or timedelta()
        named = not re.fullmatch(r"[+-]\d{4}", zone)
        value = moment.replace(tzinfo=timezone(offset, zone) if named else timezone(offset))
    return Option(kind, value)


@rows("row", GOLDEN["options"], ids=lambda row: ascii(row["string"])[:60])
def test_options_are_printed_as_in_go(row: dict[str, Any]) -> None:
    assert format_option(option_of(row)) == row["string"]


@rows("row", GOLDEN["options"], ids=lambda row: ascii(row["string"])[:60])
def test_options_of_go_are_read(row: dict[str, Any]) -> None:
    written, read = option_of(row), parse_option(row["string"])

    assert read is not None
    if isinstance(written.value, datetime) and isinstance(read.value, datetime):
        assert (read.kind, read.value.replace(tzinfo=None)) == (
            written.kind,
            written.value.replace(microsecond=0, tzinfo=None),
        )
    else:
        assert format_option(read) == row["string"]


@rows(
    ("option", "text"),
    [
        (Option(OptionKind.DEADLINE, datetime(2033, 5, 1, tzinfo=UTC)), "Deadline(Sun May  1 00:00:00 UTC 2033)"),
        (Option(OptionKind.HEADER, ("k", "v")), 'Header(["k","v"])'),
        (Option(OptionKind.TIMEOUT, 90_000_000_000), "Timeout(1m30s)"),
        (Option(OptionKind.QUEUE, "low"), 'Queue("low")'),
        (Option(OptionKind.MAX_RETRY, 3), "MaxRetry(3)"),
    ],
)
def test_an_option_survives_printing_and_reading(option: Option, text: str) -> None:
    assert format_option(option) == text
    assert parse_option(text) == option


@rows(
    "text",
    [
        "Header(" + "[" * 100_000 + ")",
        "Header([" + "9" * 10_000 + "])",
        "Header([NaN])",
        "Header(null",
        "MaxRetry(" + "9" * 10_000 + ")",
        'Queue("\\ud800")',
        "Queue('ab')",
        'Queue("a",1)',
        'Queue("a" "b")',
        'Queue("\\q")',
        'Queue("\\xff")',
        'Queue("a",' + "-" * 200_000 + "1)",
        "Deadline(Tue Feb 30 00:00:00 UTC 2033)",
        "Deadline(Tue Feb  1 24:00:00 UTC 2033)",
        "Deadline(Tue Feb  1 00:00:00 UTC 0000)",
    ],
    ids=lambda text: text[:40],
)
def test_hostile_option_strings_are_ignored(text: str) -> None:
    assert parse_option(text) is None


@given(st.one_of(st.text(), st.builds("{}({})".format, st.sampled_from(OptionKind), st.text())))
def test_reading_never_raises(text: str) -> None:
    option = parse_option(text)

    assert option is None or option.kind in OptionKind


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_quoting(text: str) -> None:
    assert unquote(quote(text)) == text


@rows(
    "option",
    [
        Option(OptionKind.MAX_RETRY, "3"),
        Option(OptionKind.QUEUE, 3),
        Option(OptionKind.TIMEOUT, "1s"),
        Option(OptionKind.DEADLINE, datetime(2033, 5, 1)),  # noqa: DTZ001 - a naive time has no zone to print
        Option(OptionKind.HEADER, "k=v"),
    ],
    ids=lambda option: option.kind,
)
def test_a_value_of_another_type_is_not_printed(option: Option) -> None:
    with pytest.raises(WireFormatError, match="cannot hold a value of type"):
        format_option(option)
