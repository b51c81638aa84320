"""Test the output on a terminal and in files or pipes."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.text import Text

from taskq_core.cli.render import (
    Output,
    shown_bytes,
    shown_moment,
    shown_rate,
    shown_size,
    shown_span,
)
from taskq_core.cli.table import Column
from taskq_core.wire.quoting import clean

COLUMNS = (Column(title="NAME"), Column(title="SIZE", right=True), Column(title="STATE"))
ROWS = [("default", "3", "paused"), ("\N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-4E00}", "12000", "running")]


class Terminal(io.StringIO):
    """A person reads along."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What kind of terminal the tests run in does not matter: a dumb one has no width and no bar that moves."""
    monkeypatch.setenv("TERM", "xterm")


def output(
    colour: str = "auto", *, file: type[io.StringIO] = io.StringIO, **options: object
) -> tuple[Output, io.StringIO, io.StringIO]:
    stdout, stderr = file(), file()
    return Output(stdout, stderr, colour=colour, **options), stdout, stderr  # type: ignore[arg-type]  # as a test says


def test_a_table_in_a_pipe_is_aligned_by_character_width() -> None:
    out, stdout, _ = output()

    out.table(COLUMNS, ROWS, empty="none")

    assert stdout.getvalue().splitlines() == [
        "NAME      SIZE  STATE",
        "default      3  paused",
        "\N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-4E00}      12000  running",
    ]


def test_a_table_on_a_terminal_has_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, stdout, _ = output(file=Terminal)

    out.table(COLUMNS, ROWS, empty="none")

    assert "\x1b[33mpaused" in stdout.getvalue()


def test_the_color_option_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    out, stdout, _ = output("always")

    out.table(COLUMNS, ROWS, empty="none")

    assert "\x1b[33mpaused" in stdout.getvalue()


def test_nothing_is_truncated_in_a_pipe_with_or_without_colors(
    monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """A CI server sets FORCE_COLOR; `--color always` is for a pager."""
    for colour in ["auto", "always"]:
        with subtests.test(colour=colour):
            monkeypatch.setenv("FORCE_COLOR", "1")
            monkeypatch.setenv("COLUMNS", "60")
            out, stdout, stderr = output(colour)

            with out.progress("deleting") as progress:
                progress(1, 2)
                out.table((Column(title="NAME"), Column(title="ERROR")), [("n" * 70, "e" * 200)], empty="")

            assert Text.from_ansi(stdout.getvalue()).plain.splitlines()[1].split() == ["n" * 70, "e" * 200]
            assert stderr.getvalue() == ""


def test_a_table_too_wide_for_its_terminal_stays_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal breaks the lines then; no column is squeezed to a letter or to nothing."""
    monkeypatch.setenv("COLUMNS", "60")
    out, stdout, _ = output("always", file=Terminal)
    titles = ("NEXT RETRY", "LAST ERROR", "PROCESSED TODAY")
    columns = [Column(title=title, whole=title == "ID", right=title == titles[2]) for title in ("ID", *titles)]

    out.table(columns, [("i" * 36, "in 5m", "ValueError", "3")], empty="")

    heading, row = Text.from_ansi(stdout.getvalue()).plain.splitlines()
    assert all(title in heading for title in titles)
    assert row.split() == ["i" * 36, "in", "5m", "ValueError", "3"]


def test_long_text_is_truncated_on_a_terminal_and_ids_are_complete(
    monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for width in [60, 100, 400]:
        with subtests.test(width=width):
            monkeypatch.setenv("COLUMNS", str(width))
            out, stdout, _ = output("always", file=Terminal)
            columns = (
                Column(title="ID", whole=True),
                Column(title="PAYLOAD"),
                Column(title="ERROR"),
            )
            task_id = "1f3a0c5e-8a43-4e24-9a37-b1b5f8f9d0aa"

            out.table(columns, [(task_id, "{}", "e" * 200), (task_id, "p" * 9, "short")], empty="")

            lines = Text.from_ansi(stdout.getvalue()).plain.splitlines()
            assert len(lines) == 3
            assert all(line.startswith(task_id) for line in lines[1:])
            assert all(len(line.rstrip()) <= width for line in lines)
            assert "p" * 9 in lines[2]
            assert ("e" * 200 in lines[1]) is (width == 400)


def test_an_empty_table_shows_a_message() -> None:
    out, stdout, _ = output()

    out.table(COLUMNS, [], empty="no queues")

    assert stdout.getvalue() == "no queues\n"


def test_foreign_text_neither_controls_the_terminal_nor_is_markup(subtests: pytest.Subtests) -> None:
    for colour in ["auto", "always"]:
        with subtests.test(colour=colour):
            out, stdout, stderr = output(colour)
            evil = "\x1b]0;owned\x07[red]name[/red]\r\n:smile:\N{RIGHT-TO-LEFT OVERRIDE}"

            out.table((Column(title="NAME"),), [(evil,)], empty="")
            out.line(evil)
            out.pairs({"name": evil})
            out.error(evil)

            shown = stdout.getvalue() + stderr.getvalue()
            assert shown.count(r"\x1b]0;owned\x07[red]name[/red]\r\n:smile:\u202e".replace("\n", "")) >= 3
            assert "\x1b]0" not in shown
            assert "\r" not in shown


def test_json_is_one_document_with_all_characters() -> None:
    out, stdout, _ = output(as_json=True)

    out.json({"name": "\N{SNOWMAN}\x1b"})

    assert stdout.getvalue() == '{\n  "name": "\N{SNOWMAN}\\u001b"\n}\n'
    assert json.loads(stdout.getvalue()) == {"name": "\N{SNOWMAN}\x1b"}
    assert "\x1b" not in stdout.getvalue()


def test_json_escapes_control_characters_and_keeps_all_values(subtests: pytest.Subtests) -> None:
    """JSON itself escapes the control characters of ASCII alone."""
    for odd in ["\x9b31m", "\x85", "\u2028", "\u202e", "\x7f", "\ud800", "\U000e0001"]:
        with subtests.test(odd=odd):
            out, stdout, _ = output(as_json=True)

            out.json({f"name{odd}": [f"a{odd}b\n"]})

            assert all(line.isprintable() for line in stdout.getvalue().split("\n"))
            assert stdout.getvalue().count("\n") == 5
            assert json.loads(stdout.getvalue()) == {f"name{odd}": [f"a{odd}b\n"]}


def test_progress_is_shown_only_on_a_terminal() -> None:
    quiet, _, said_nothing = output()
    loud, stdout, said = output("always", file=Terminal)

    for out in (quiet, loud):
        with out.progress("deleting") as progress:
            progress(50, 200)
            progress(200, 200)

    assert said_nothing.getvalue() == ""
    assert "deleting" in said.getvalue()
    assert stdout.getvalue() == ""


def test_durations_are_formatted(subtests: pytest.Subtests) -> None:
    for span_s, text in [
        (0, "0ms"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (59, "59s"),
        (3600, "1h"),
        (3661, "1h 1m"),
        (200_000, "2d 7h"),
    ]:
        with subtests.test(span_s=span_s, text=text):
            assert shown_span(timedelta(seconds=span_s)) == text


def test_times_sizes_rates_and_bytes_are_formatted() -> None:
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)

    assert shown_moment(noon) == "2030-01-01 12:00:00Z"
    assert shown_moment(noon, now=noon - timedelta(hours=1)) == "2030-01-01 12:00:00Z (in 1h)"
    assert shown_moment(noon, now=noon + timedelta(hours=1)) == "2030-01-01 12:00:00Z (1h ago)"
    assert (shown_moment(None), shown_span(None)) == ("-", "-")
    assert [shown_size(size) for size in (0, 1023, 1536, 5 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert (shown_rate(0.125), shown_rate(None)) == ("12.50 %", "-")
    assert shown_bytes(b"ab\xff") == "ab\\xff"
    assert shown_bytes(b"abcdef", most=3) == "abc..."
    assert clean("a\tb\N{SNOWMAN}") == "a\\tb\N{SNOWMAN}"
