"""What becomes of the aims: when they are met, how that is told and drawn."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import aims, plots, publishing
from benchmarks.aims import Aim, Verdict
from benchmarks.results import Results, Row, summary

GOLDEN = Path(__file__).parent / "results.json"
SVG = "{http://www.w3.org/2000/svg}"
TASKS = 50_000


def row(title: str, median: float, **more: Any) -> Row:
    values: dict[str, Any] = {"unit": "tasks/s", "higher_is_better": True, **more}
    runs = summary([median * 0.9, median, median * 1.2])
    return Row(system="taskq", measure=title, setting="{}", title=title, placement="apart", **runs, **values)


def results(*rows: Row) -> Results:
    return replace(
        Results.read(GOLDEN), rows=list(rows), conditions={**Results.read(GOLDEN).conditions, "tasks": TASKS}
    )


def verdict(found: list[Verdict], what: str) -> Verdict:
    (one,) = [each for each in found if each.aim.what.startswith(what)]
    return one


@pytest.mark.parametrize(
    ("bounds", "value", "is_met", "share"),
    [
        ({"least": 100.0}, 100.0, True, 100.0),
        ({"least": 100.0}, 99.0, False, 99.0),
        ({"most": 10.0}, 10.0, True, 100.0),
        ({"most": 10.0}, 20.0, False, 50.0),
        ({"most": 10.0}, None, None, None),
        ({}, 20.0, None, None),
    ],
)
def test_an_aim_is_met_at_its_bound(
    bounds: dict[str, Any], value: float | None, is_met: bool | None, share: float | None
) -> None:
    found = Verdict(aim=Aim(what="it", rows=("it",), unit="ms", **bounds), value=value, row=None)

    assert (found.is_met, found.share) == (is_met, share)


def test_verdicts_are_of_one_row_or_of_several() -> None:
    noop = row("drain: coroutine, concurrency 1,000", 80_000.0)
    found = aims.verdicts(
        results(
            row("drain: coroutine, concurrency 50", 64_000.0),
            row("waiting 10 ms: coroutine, concurrency 1,000", 60_000.0),
            noop,
            row("latency of tasks from Go, 99th percentile", 2.0, unit="ms", higher_is_better=False),
        )
    )

    drain = verdict(found, "drain, 50 coroutines, one process")
    assert (drain.value, drain.is_met) == (64_000, False)
    assert drain.row is not None
    assert verdict(found, "drain, 50 coroutines, beside Go").is_met is True
    assert verdict(found, "tasks of 10 ms, 1,000 coroutines").value == 75.0  # of what it does with no wait
    assert verdict(found, "enqueue by Go to start at 200/s, 99 %").is_met is True
    assert verdict(found, "bulk enqueue").value is None


def test_the_ideal_of_tasks_that_wait_is_no_more_than_slots_allow() -> None:
    found = aims.verdicts(
        results(
            row("waiting 10 ms: coroutine, concurrency 1,000", 96_000.0),
            row("drain: coroutine, concurrency 1,000", 130_000.0),
        )
    )

    assert verdict(found, "tasks of 10 ms, 1,000 coroutines").value == pytest.approx(96)


def test_the_fastest_peer_is_taken_out_of_a_run_beside_the_peers() -> None:
    golden = Results.read(GOLDEN)
    rows = [
        replace(row("drain", 90_000.0), measure="drain 50"),
        replace(row("drain", 5_000.0), measure="drain 50", system="dramatiq"),
        replace(row("drain", 4_000.0), measure="drain 50", system="huey"),
        replace(row("drain", 9_000.0), measure="drain 50", system="bullmq-npm"),
        replace(row("drain", 12_800.0), measure="drain 50", system="asynq (Go)", source="reference"),
    ]

    found = aims.verdicts(results(), replace(golden, rows=rows))
    without = aims.verdicts(results(), None)

    beside = verdict(found, "drain, concurrency 50, beside dramatiq, the fastest in Python")
    assert (beside.value, beside.is_met) == (18.0, True)
    assert verdict(without, "drain, concurrency 50, beside the fastest").value is None


def test_the_table_says_what_was_measured_whether_it_is_met_and_how_to_measure_it() -> None:
    found = aims.verdicts(results(row("drain: plain, concurrency 50", 59_000.0)))

    text = aims.table(found)

    assert (
        "| drain, 50 threads, one process | at least 60,000 tasks/s | 59,000 tasks/s (53,100 to 70,800) | **no** | "
        '`python -m benchmarks --only "drain: plain, concurrency 50"` |\n'
    ) in text
    assert "| bulk enqueue | at least 120,000 tasks/s | not measured in this run |  | " in text
    assert text.count("\n") == len(found) + 2
    assert "10,000,000 pending" not in text  # measured only where that is asked for


def test_the_picture_of_the_aims_shows_which_are_missed() -> None:
    measured = results(row("drain: plain, concurrency 50", 30_000.0), row("enqueue: enqueue_many()", 240_000.0))
    shares = plots.of_aims(measured, aims.verdicts(measured))

    root = ElementTree.fromstring(plots.draw(shares, plots.PICTURES_OF_AIMS[0]))

    bars = [bar.get("class") for bar in root.iter(f"{SVG}rect") if bar.get("class") != "paper"]
    assert bars == ["peer", "ours"]
    assert [share.median for share in shares.rows] == [50.0, 200.0]


def test_publishing_aims_again_changes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- aims: begin -->\nold\n<!-- aims: end -->\n\nAfter.\n")
    measured = results(row("drain: plain, concurrency 50", 30_000.0))
    (tmp_path / "of-an-earlier-run.svg").write_text("<svg/>")

    drawn = publishing.publish_aims(measured, None, pictures=tmp_path, page=page)
    first = page.read_text()
    publishing.publish_aims(measured, None, pictures=tmp_path, page=page)

    assert drawn == ["aims", "rates"]
    assert sorted(path.stem for path in tmp_path.glob("*.svg")) == drawn
    assert page.read_text() == first
    assert first.startswith("Before.\n")
    assert first.endswith("\n\nAfter.\n")
    assert "old" not in first
    assert "| drain: plain, concurrency 50 | tasks/s | 30,000 | 27,000 to 36,000 |" in first


def test_the_aims_on_the_page_are_those_of_its_results(tmp_path: Path) -> None:
    if not publishing.AIMS.exists():  # none are published
        assert not publishing.PICTURES_OF_OURS.exists()
        return
    page = tmp_path / "performance.md"
    shutil.copy(publishing.PAGE, page)
    peers = Results.read(publishing.RESULTS)

    drawn = publishing.publish_aims(Results.read(publishing.AIMS), peers, pictures=tmp_path, page=page)

    assert page.read_text(encoding="utf-8") == publishing.PAGE.read_text(encoding="utf-8")
    kept = publishing.PICTURES_OF_OURS
    assert sorted(path.name for path in kept.glob("*.svg")) == sorted(f"{name}.svg" for name in drawn)
    for name in drawn:
        assert (tmp_path / f"{name}.svg").read_text() == (kept / f"{name}.svg").read_text(), name
