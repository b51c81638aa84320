"""The mutants of the soak fit the code as it stands; running them is `make soak-mutants`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.faults import FAULTS
from tests.soak.invariants import INVARIANTS
from tests.soak.mutants import MUTANTS, ROOT, Mutant, StalePatchError, apply
from tests.soak.profiles import PROFILES
from tests.soak.schedule import plan


def files_of(mutant: Mutant, folder: Path) -> None:
    for change in mutant.changes:
        target = folder / change.file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / change.file, target)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code(mutant: Mutant, tmp_path: Path) -> None:
    """It changes every file that it names, and Python among them still compiles."""
    files_of(mutant, tmp_path)

    apply(mutant, tmp_path)

    for change in mutant.changes:
        file = tmp_path / change.file
        assert file.read_text() != (ROOT / change.file).read_text()
        if file.suffix == ".py":
            subprocess.run([sys.executable, "-m", "py_compile", str(file)], check=True)


def test_a_mutant_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    mutant = MUTANTS[0]
    files_of(mutant, tmp_path)
    apply(mutant, tmp_path)

    with pytest.raises(StalePatchError, match=r"stands 0 times in taskq_core/broker/lua/_ends\.lua, expected once"):
        apply(mutant, tmp_path)


def test_those_of_the_catalogue_and_of_rules_are_there() -> None:
    assert [mutant.name for mutant in MUTANTS] == [
        "no fence",
        "fence without run",
        "receipt compared for equality",
        "recovery without re-check",
        "no ack retry",
        "turn without receipt",
        "ack before handler",
        "no lease extension",
        "leaking lock",
        "no allow-oom",
        "permit not given back",
        "continuation doubled",
        "step before its predecessors",
    ]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_exposes_it_can_be_planned(mutant: Mutant) -> None:
    assert set(mutant.faults) <= FAULTS.keys()
    assert mutant.shows <= set(range(1, len(INVARIANTS)))
    assert plan(PROFILES["ci"], 1, only=mutant.faults, minutes=1.3).faults
