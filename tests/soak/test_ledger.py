"""Ledgers: what a process writes is there when it is killed, and merged they tell what happened to each task."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.soak.effects import Effects, value_of
from tests.soak.ledger import Ledger, merge, read
from tests.soak.made_up import WORKER_A, WORKER_B, enqueued, event, flowed, ran, told

ROOT = Path(__file__).parents[2]


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """It dies at once after its last line."""
    code = (
        "import os, signal, sys; from pathlib import Path; from tests.soak.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), 'worker-0')\n"
        "for n in range(1000): ledger.write('start', id=str(n))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})

    assert done.returncode == -signal.SIGKILL
    assert [each["id"] for each in read(tmp_path)] == [str(n) for n in range(1000)]


def test_ledgers_are_merged_by_time(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path, "worker-0"), Ledger(tmp_path, "worker-1")
    for n in range(6):
        (first, second)[n % 2].write("start", id=str(n))

    assert [each["id"] for each in read(tmp_path)] == ["0", "1", "2", "3", "4", "5"]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    whole = json.dumps({"t": 1.0, "event": "start", "id": "a"})
    (tmp_path / "worker-0-1.jsonl").write_text(f"{whole}\n{whole[:20]}")

    assert [each["id"] for each in read(tmp_path)] == ["a"]


def test_a_history_tells_the_runs_of_a_task() -> None:
    history = merge(
        [
            *enqueued(1.0, "a", slot=3),
            *ran(2.0, "a", how="raised", outcome="retried"),
            *ran(5.0, "a", pid=WORKER_B, attempt=2, lasts=None),
        ]
    )

    task = history.tasks["a"]

    assert (task.is_acknowledged, task.is_unknown, task.has_succeeded, task.slot) == (True, False, False, 3)
    assert [(run.attempt, run.how, run.outcome, run.ended) for run in task.runs] == [
        (1, "raised", "retried", 2.1),
        (2, "", "", None),
    ]


def test_an_enqueue_without_an_answer_is_unknown() -> None:
    history = merge([event(1.0, "attempt", id="a", name="quick", queue="default")])

    assert history.tasks["a"].is_unknown


def test_a_loss_is_told_of_the_run_it_is_about() -> None:
    """The same worker has begun the task again when it hears that it had lost it."""
    about = {"id": "a", "pid": 101, "who": "worker-0"}
    history = merge(
        [*ran(1.0, "a", run=1, lasts=None), *ran(9.0, "a", run=2, attempt=2), event(9.5, "lost", run=1, **about)]
    )

    assert [run.lost_at for run in history.tasks["a"].runs] == [9.5, None]


def test_an_outcome_of_what_never_began_is_not_that_of_an_earlier_run() -> None:
    """A task that expired has the number of a run that is over: numbers go by contexts, and those are used again."""
    history = merge([*ran(1.0, "a"), event(2.0, "outcome", id="late", outcome="expired", pid=WORKER_A, run=1)])

    assert history.tasks["a"].runs[0].outcome == ""


def test_what_a_run_writes_of_itself_is_kept_with_it() -> None:
    history = merge(
        [
            *flowed(1.0, [7, [], None, "done"]),
            *ran(2.0, "w.begin", name="begin"),
            told(2.1, "step", "w.begin", slot=7, got=[1]),
            told(2.2, "item", "w.begin", item=0),
            told(2.3, "taken", "w.begin", at=1002.0),
        ]
    )

    run = history.tasks["w.begin"].runs[0]
    assert (run.got, run.items, run.taken) == ([1], [0], 1002.0)
    assert history.tasks["w.begin"].slot == 7
    found = history.flow_of("w.begin")
    assert found is not None
    assert (found.id, found.answer, found.steps[0].fate) == ("w", "acknowledged", "done")
    assert history.flow_of("another.begin") is None


def test_setting_an_effect_twice_is_setting_it_once(tmp_path: Path) -> None:
    effects = Effects(tmp_path / "table")
    for slot in (5, 5, 2_000_000):
        effects.put(slot)

    assert effects.read([5, 6, 2_000_000]) == {5: value_of(5), 6: 0, 2_000_000: value_of(2_000_000)}
    effects.close()
