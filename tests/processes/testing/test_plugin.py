"""Test the fixtures in a separate run of pytest."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
APP = """
from taskq_core import TaskQ

taskq = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.1)


@taskq.task(name="note", retention=60)
def note(n: int) -> int:
    if not n:
        raise ValueError("zero")
    return n
"""


def run_pytest(folder: Path, tests: str, *, ini: str = "taskq_app = app:taskq") -> tuple[dict[str, int], str]:
    """Run the tests in a folder. Return the number of tests by outcome, and the output."""
    (folder / "app.py").write_text(APP, encoding="utf-8")
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n", encoding="utf-8")
    (folder / "conftest.py").write_text('pytest_plugins = ["taskq_core.testing.plugin"]\n', encoding="utf-8")
    (folder / "test_app.py").write_text("import pytest\nfrom app import note, taskq\n" + tests, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:django", "-p", "no:xdist", "-q"],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    counts = done.stdout.rstrip().rpartition("\n")[2].partition(" in ")[0]
    return {word: int(number) for number, word in (each.split() for each in counts.split(", "))}, done.stdout


def test_fixtures(tmp_path: Path) -> None:
    counts, output = run_pytest(
        tmp_path,
        """
def test_capture(taskq_capture):
    note.delay(1)
    taskq_capture.assert_enqueued(note, 1)
    assert taskq_capture.run()[0].outcome == "completed"

def test_eager(taskq_eager):
    assert note.delay(2).result() == 2

def test_drain(taskq_drain, taskq_capture):
    handle = note.using(run_after=60).delay(3)
    assert taskq_drain() == []
    assert [run.id for run in taskq_drain(advance=60)] == [handle.id]
    taskq_capture.assert_enqueued(note, count=1)

def test_app(taskq_app):
    assert taskq_app is taskq
""",
    )

    assert counts == {"passed": 4}, output


def test_a_failing_task_fails_its_test(tmp_path: Path) -> None:
    counts, output = run_pytest(tmp_path, "def test_eager(taskq_eager):\n    note.delay(0)\n")

    assert counts == {"passed": 1, "error": 1}
    assert "ValueError: zero" in output
    assert "in task 'note'" in output


def test_an_overridden_fixture_selects_the_application(tmp_path: Path) -> None:
    counts, output = run_pytest(
        tmp_path,
        """
@pytest.fixture
def taskq_app():
    return taskq

def test_capture(taskq_capture):
    note.delay(1)
    assert len(taskq_capture.enqueued) == 1
""",
        ini="",
    )

    assert counts == {"passed": 1}, output


@pytest.mark.parametrize(
    ("ini", "message"),
    [
        ("", "the taskq fixtures need a queue application: set taskq_app = module:attribute"),
        ("taskq_app = app", "got 'app'"),
        ("taskq_app = app:note", "taskq_app must name a TaskQ, but 'app:note' is a Task"),
    ],
)
def test_without_an_application_the_error_says_what_to_do(tmp_path: Path, ini: str, message: str) -> None:
    counts, output = run_pytest(tmp_path, "def test_it(taskq_capture): ...\n", ini=ini)

    assert counts == {"error": 1}
    assert message in output
