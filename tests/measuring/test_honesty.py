"""Published figures are honest: a ledger counts each task, and noise is reported beside the results."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import plots, publishing
from benchmarks.peers.ledger import Ledger
from benchmarks.results import Results

GOLDEN = Path(__file__).parent / "results.json"
pytestmark = pytest.mark.nightly


def test_a_ledger_notices_a_lost_and_a_doubled_task(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 20)
    for number in (0, 1, 2, 2, 4, 5):
        ledger.ran(number)

    account = ledger.account(6)
    seen = ledger.seen(6)
    ledger.close()

    assert (account.once, account.lost, account.repeated, account.runs) == (4, 1, 1, 6)
    assert seen == 5
    assert not account.is_exact


def test_a_ledger_in_which_each_ran_once_is_exact(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 3)
    for number in range(3):
        ledger.began(number)
        ledger.ended(number)

    assert ledger.account(3).is_exact
    ledger.close()


def test_a_ledger_notices_a_task_that_nobody_asked_for(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 10)
    for number in (0, 1, 7):
        ledger.ran(number)

    account = ledger.account(2)
    ledger.close()

    assert (account.once, account.lost, account.repeated) == (2, 0, 1)


def test_page_and_pictures_say_when_the_machine_was_not_quiet() -> None:
    quiet = Results.read(GOLDEN)
    noisy = replace(quiet, noise={**quiet.noise, "foreign_percent_median": 60.0})
    picture = next(picture for picture in plots.PICTURES_OF_PEERS if picture.name == "drain-50")

    assert "not quiet" in plots.draw(noisy, picture)
    assert "not quiet" in publishing.conditions(noisy)
    assert "not quiet" not in plots.draw(quiet, picture) + publishing.conditions(quiet)
