import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.errors import WireFormatError
from taskq_core.wire.durations import (
    MAX_DURATION_NS,
    MIN_DURATION_NS,
    format_duration,
    parse_duration,
    timedelta_of_ns,
)
from tests.rows import rows

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "options.json").read_text(encoding="utf-8"))


@rows("row", GOLDEN["durations"], ids=lambda row: str(row["ns"]))
def test_durations_are_printed_and_read_as_in_go(row: dict[str, Any]) -> None:
    assert format_duration(row["ns"]) == row["string"]
    assert parse_duration(row["string"]) == row["ns"]


@rows("row", GOLDEN["parse_durations"], ids=lambda row: ascii(row["string"]))
def test_texts_are_read_or_refused_as_in_go(row: dict[str, Any]) -> None:
    if row["error"] is None:
        assert parse_duration(row["string"]) == row["ns"]
    else:
        with pytest.raises(WireFormatError, match="is not a duration"):
            parse_duration(row["string"])


@given(st.integers(MIN_DURATION_NS, MAX_DURATION_NS))
def test_every_duration_survives_printing_and_reading(ns: int) -> None:
    assert parse_duration(format_duration(ns)) == ns


@given(st.one_of(st.text(), st.text(alphabet="0123456789.+-hmsnuµ ")))
def test_any_text_is_parsed_or_refused_with_a_taskq_error(text: str) -> None:
    try:
        ns = parse_duration(text)
    except WireFormatError:
        return
    assert MIN_DURATION_NS <= ns <= MAX_DURATION_NS


@pytest.mark.parametrize(
    ("text", "ns"), [("0" * 100_000 + "1s", 1_000_000_000), ("0." + "1" * 100_000 + "s", 111_111_111)], ids=["0", "0.1"]
)
def test_very_long_numbers_are_read(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


def test_a_number_of_many_digits_is_refused_with_a_short_error() -> None:
    with pytest.raises(WireFormatError) as caught:
        parse_duration("9" * 100_000 + "s")

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("ns", [MAX_DURATION_NS + 1, MIN_DURATION_NS - 1])
def test_a_duration_beyond_64_bits_is_not_printed(ns: int) -> None:
    with pytest.raises(WireFormatError, match="64 bits"):
        format_duration(ns)


@given(st.timedeltas())
def test_timedeltas_survive_as_nanoseconds(duration: timedelta) -> None:
    assert timedelta_of_ns(duration // timedelta(microseconds=1) * 1_000) == duration
