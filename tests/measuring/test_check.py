"""Test that the comparison with an earlier commit detects a loss, and reports what it could not compare."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import check
from benchmarks.check import Costs, JobsFailedError, Meter

BEFORE: Costs = {("enqueue", "taskq"): 100_000.0, ("enqueue", "Redis"): 50_000.0}
METER = Meter("valgrind")


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that runs git in an empty repository, which is compared."""

    def run(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=tmp_path, check=True)

    monkeypatch.setattr(check, "ROOT", tmp_path)
    run("init", "--quiet")
    (tmp_path / check.PACKAGE).mkdir()
    write(tmp_path, "first")
    run("add", ".")
    run("commit", "--quiet", "--message", "First")
    return run


def write(root: Path, text: str) -> None:
    (root / check.PACKAGE / "module.py").write_text(f"# {text}")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that sets how much a task in the current tree costs, in percent of what it did before."""

    def change(percent: float) -> None:
        def measured(self: Meter, trees: Sequence[Path], names: Sequence[str]) -> tuple[Costs, Costs]:
            texts = [(tree / check.PACKAGE / "module.py").read_text() for tree in trees]
            assert texts == ["# second", "# first"]
            return {key: cost * percent / 100 for key, cost in BEFORE.items()}, BEFORE

        monkeypatch.setattr(Meter, "measure", measured)

    return change


def test_a_change_that_costs_five_percent_fails(
    git: Callable[..., None], measure: Callable[[float], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "second")  # not committed
    measure(105)

    assert check.check("HEAD", METER) == 1
    taskq, redis = capsys.readouterr().out.splitlines()[1:3]
    assert taskq.startswith("delay(): taskq")
    assert taskq.endswith("100,000    105,000   +5.0 %  SLOWER")
    assert redis.endswith("50,000     52,500   +5.0 %")  # the count of Redis varies more, so its limit is 10 %


def test_a_change_that_costs_less_than_five_percent_passes(
    git: Callable[..., None], measure: Callable[[float], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "second")
    measure(104.9)

    assert check.check("HEAD", METER) == 0
    assert "SLOWER" not in capsys.readouterr().out


def test_a_loss_is_accepted_if_a_commit_says_why(
    git: Callable[..., None], measure: Callable[[float], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "second")
    git("commit", "--quiet", "--all", "--message", "Second", "--message", "Slower: each task is now checked")
    measure(150)

    assert check.check("HEAD^", METER) == 0
    assert "says why: each task is now checked" in capsys.readouterr().out


def test_the_first_commit_and_a_clone_without_its_parent_are_not_compared(
    git: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.check("HEAD^", METER) == 0
    assert capsys.readouterr().out.startswith("NOT COMPARED: this clone does not contain HEAD^")


def test_an_unknown_base_fails(git: Callable[..., None]) -> None:
    assert check.check("v9.9", METER) == 1


def test_nothing_is_measured_if_the_package_is_the_same(
    git: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.check("HEAD", METER) == 0
    assert "nothing is measured" in capsys.readouterr().out


@pytest.mark.parametrize(("broken", "status"), [(0, 1), (1, 0)])
def test_only_a_base_on_which_the_jobs_do_not_run_is_not_compared(
    broken: int,
    status: int,
    git: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(self: Meter, trees: Sequence[Path], names: Sequence[str]) -> tuple[Costs, Costs]:
        raise JobsFailedError(trees[broken], "ImportError: no name")

    monkeypatch.setattr(Meter, "measure", fail)
    write(tmp_path, "second")

    assert check.check("HEAD", METER) == status
    output = capsys.readouterr().out
    assert output.startswith("ImportError: no name")
    assert ("NOT COMPARED" in output) is (status == 0)


def test_without_valgrind_a_loss_counts_only_if_each_pair_shows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now, before, key = tmp_path / "now", tmp_path / "before", ("enqueue", "taskq")
    costs = {now: iter([130.0, 140.0, 110.0, 150.0, 160.0]), before: iter([100.0] * 5)}
    monkeypatch.setattr(Meter, "_measure", lambda self, tree, names: {key: next(costs[tree])})

    assert Meter(None).measure((now, before), ["enqueue"]) == ({key: 110.0}, {key: 100.0})


@pytest.mark.nightly
@pytest.mark.redis
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.parametrize(("rounds", "is_slower"), [(0, False), (80, True)])
def test_valgrind_shows_a_loop_that_costs_six_percent_of_an_enqueue(
    rounds: int, is_slower: bool, tmp_path: Path
) -> None:
    package = tmp_path / check.PACKAGE
    shutil.copytree(check.ROOT / check.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    call = "        return self._enqueuer.client.enqueue("
    file = package / "tasks" / "task.py"
    text = file.read_text()
    assert text.count(call) == 1
    file.write_text(text.replace(call, f"        for _ in range({rounds}):\n            pass\n{call}"))

    assert check.compare(check.ROOT, tmp_path, ["enqueue"], meter=Meter(shutil.which("valgrind"))) is is_slower
