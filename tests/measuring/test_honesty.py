"""Test that published benchmark figures count each task exactly, and report when the machine was not quiet."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import plots, publishing
from benchmarks.peers.ledger import Ledger
from benchmarks.results import Results

GOLDEN = Path(__file__).parent / "results.json"
pytestmark = pytest.mark.nightly


def test_a_ledger_detects_a_lost_and_a_repeated_task(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 20)
    for number in (0, 1, 2, 2, 4, 5):
        ledger.ran(number)

    account = ledger.account(6)
    seen = ledger.seen(6)
    ledger.close()

    assert (account.once, account.lost, account.repeated, account.runs) == (4, 1, 1, 6)
    assert seen == 5
    assert not account.is_exact


def test_a_ledger_is_exact_if_each_task_ran_once(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 3)
    for number in range(3):
        ledger.began(number)
        ledger.ended(number)

    assert ledger.account(3).is_exact
    ledger.close()


def test_a_ledger_detects_an_unknown_task(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 10)
    for number in (0, 1, 7):
        ledger.ran(number)

    account = ledger.account(2)
    ledger.close()

    assert (account.once, account.lost, account.repeated) == (2, 0, 1)


def test_page_and_charts_report_a_machine_that_was_not_quiet() -> None:
    quiet = Results.read(GOLDEN)
    noisy = replace(quiet, noise={**quiet.noise, "foreign_percent_median": 60.0})
    picture = next(picture for picture in plots.PICTURES_OF_PEERS if picture.name == "drain-50")

    remark = "ther processes used the machine"
    assert remark in plots.draw(noisy, picture)
    assert remark in publishing.conditions(noisy)
    assert remark not in plots.draw(quiet, picture) + publishing.conditions(quiet)
