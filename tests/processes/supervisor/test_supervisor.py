"""Test a worker with several real processes: they die, are replaced, and stall, without losing a task."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskq_core import TaskQ, TaskState
from taskq_core.inspector import Inspector
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, marks, state_of, stored, until_blocking

pytestmark = [pytest.mark.slow, pytest.mark.redis]

ROOT = Path(__file__).parents[3]


class Workers:
    """A supervisor and its processes: `taskq worker` with these arguments, or with shorter times `program.py`."""

    def __init__(
        self,
        server: RedisServer,
        *arguments: str,
        ready: bool = True,
        worker: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        prepare: Callable[[], object] | None = None,
        **supervisor: Any,
    ) -> None:
        self.server = server
        program = ["taskq_core", "worker", "tests.processes.supervisor.program:app", *arguments]
        if not arguments:
            settings = {
                "supervisor": {"ending": 20, "aborting": 2, "silence": 60, **supervisor},
                "worker": {"concurrency": 2, "heartbeat": 0.5, "interrupt_grace": 0.2, **(worker or {})},
            }
            program = ["tests.processes.supervisor.program", json.dumps(settings)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *program],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TASKQ_URL": server.url,
                "NOTES_URL": server.url,
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: self._prepare(prepare),
        )
        self.said = ""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        if ready:
            self.wait_for("ready\n")

    @staticmethod
    def _prepare(prepare: Callable[[], object] | None) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, which it would heed
        if prepare is not None:
            prepare()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def wait_for(self, text: str, times: int = 1) -> None:
        until_blocking(
            lambda: (
                self.said.count(text) >= times or (self.process.poll() is not None and not self._reading.is_alive())
            ),
            f"{text!r} in {self.said}",
        )
        assert self.said.count(text) >= times, f"{text!r} not in:\n{self.said}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(PATIENCE_S)
        self._reading.join(PATIENCE_S)
        return status

    def pids(self) -> set[int]:
        """Processes that have opened and not closed."""
        opened, closed = marks(self.server, "opened"), marks(self.server, "closed")
        return {int(pid) for pid in opened} - {int(pid) for pid in closed}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.pids():  # of a test that failed
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self._reading.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def run(redis_server: RedisServer) -> Iterator[Any]:
    started: list[Workers] = []

    def run(*arguments: str, **options: Any) -> Workers:
        workers = Workers(redis_server, *arguments, **options)
        started.append(workers)
        return workers

    yield run
    for workers in started:
        workers.close()


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(redis_server.url, defaults={"retention": 600, "max_retry": 3}, enqueue_timeout=30)
    yield app
    app.close()


@pytest.fixture
def queue(app: TaskQ) -> QueueKeys:
    return app.runtime.keys.queue("default")


def pid_of(server: RedisServer, name: str) -> int:
    """The process that noted something last."""
    return int(until_blocking(lambda: marks(server, name), f"mark {name}")[-1].split()[-1])


def health_port_of(workers: Workers) -> int:
    workers.wait_for("health endpoints: ")
    return int(workers.said.partition("health endpoints: http://127.0.0.1:")[2].partition("/")[0])


def answer(port: int) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_killed_process_is_replaced_and_what_it_held_is_given_back_at_once(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """It does not wait for the lease of half a minute; the attempt counts; the other process notices nothing."""
    workers = run("--processes", "2", "--concurrency", "1")
    handles = [app.remote("wait", retention=600).delay(name=f"w{number}", until="go") for number in range(2)]
    victim, other = pid_of(redis_server, "w0"), pid_of(redis_server, "w1")
    assert victim != other, "each took one"
    until_blocking(lambda: {each.pid for each in Inspector(app).servers()} == {victim, other})

    os.kill(victim, signal.SIGKILL)
    until_blocking(lambda: len(marks(redis_server, "w0")) == 2, "it runs again")
    redis_server.client.set("go", 1)

    assert handles[0].result(PATIENCE_S) == f"{pid_of(redis_server, 'w0')}" != f"{victim}"
    assert handles[1].result(PATIENCE_S) == f"{other}"
    assert stored(redis_server, queue, handles[0].id).retried == 1
    assert stored(redis_server, queue, handles[1].id).retried == 0
    until_blocking(lambda: victim not in {each.pid for each in Inspector(app).servers()})
    workers.wait_for("was killed by SIGKILL")
    workers.wait_for("1 tasks of process")
    assert workers.stop() == 0
    assert workers.pids() == {victim}, "all others have closed what they had opened"


def test_a_task_that_takes_its_process_along_stops(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """After its attempts it is archived; from the second loss on it waits between them."""
    run(processes=2)
    handle = app.remote("die", retention=600, max_retry=1).delay(name="d")

    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert len(marks(redis_server, "d")) == 2
    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S), "the worker goes on"


def test_a_rolling_restart_leaves_no_gap_and_reads_code_anew(
    run: Any, app: TaskQ, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A long task goes on in its old process while the new ones work; as many work at every look as were asked for."""
    version = tmp_path / "version"
    version.write_text("one")
    workers = run(processes=2, health_port=0, environment={"VERSION_FILE": str(version)})
    before = workers.pids()
    port = health_port_of(workers)
    until_blocking(lambda: answer(port)[0] == 200)
    long = app.remote("wait", retention=600).delay(name="long", until="go")
    old = pid_of(redis_server, "long")
    version.write_text("two")

    workers.signal(signal.SIGHUP)
    while len(workers.pids() - before) < 2 or workers.said.count("finishes its tasks") < 2:
        assert app.remote("version", retention=600).delay().result(PATIENCE_S) in ("one", "two")
        status, body = answer(port)
        assert (status, body["working"]) == (200, 2), body

    # An old process that has just been asked to finish may still take a task.
    until_blocking(lambda: app.remote("version", retention=600).delay().result(PATIENCE_S) == "two")
    assert answer(port)[0] == 200
    assert is_alive(old), "it finishes its tasks"
    redis_server.client.set("go", 1)
    assert long.result(PATIENCE_S) == f"{old}"
    until_blocking(lambda: not workers.pids() & before, "the old ones have closed")
    assert not redis_server.client.exists("asynq:{default}:retry", "asynq:{default}:archived")
    assert workers.stop() == 0


def test_a_rolling_restart_with_broken_code_is_given_up(run: Any, app: TaskQ, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("one")
    workers = run(processes=2, environment={"VERSION_FILE": str(version)})
    before = workers.pids()
    version.unlink()

    workers.signal(signal.SIGHUP)
    workers.wait_for("the rolling restart failed")

    assert workers.pids() == before
    assert app.remote("version", retention=600).delay().result(PATIENCE_S) == "one"
    assert workers.stop() == 0


def test_a_rolling_restart_out_of_a_pause_that_is_given_up_leaves_the_pause(
    run: Any, app: TaskQ, tmp_path: Path
) -> None:
    """The old processes take no tasks, so health and log report that no process does, until the code is valid again."""
    version = tmp_path / "version"
    version.write_text("one")
    workers = run(processes=2, health_port=0, environment={"VERSION_FILE": str(version)})
    port = health_port_of(workers)
    workers.signal(signal.SIGTSTP)
    workers.wait_for("no new tasks are taken")
    version.unlink()

    workers.signal(signal.SIGHUP)
    workers.wait_for("no process takes tasks until the next SIGHUP")

    status, body = until_blocking(lambda: (found := answer(port))[1]["working"] == 0 and found)
    assert (status, body["status"]) == (503, "draining")
    assert "the other processes are not replaced" not in workers.said
    version.write_text("two")
    handle = app.remote("version", retention=600).delay()
    workers.signal(signal.SIGHUP)
    assert handle.result(PATIENCE_S) == "two"
    until_blocking(lambda: answer(port)[0] == 200)
    assert workers.stop() == 0


@pytest.mark.parametrize(
    ("limit", "calls", "why"),
    [
        ({"max_tasks": 5}, [("whoami", {})] * 6, "the process has run"),
        ({"max_memory": 200_000_000}, [("grow", {"megabytes": 64})] * 3, "MB of memory"),
    ],
)
def test_a_process_is_replaced_after_so_much(
    run: Any, app: TaskQ, redis_server: RedisServer, limit: dict[str, int], calls: list[tuple[str, Any]], why: str
) -> None:
    """A single process as well; its successor works before it ends, and no task is run twice."""
    workers = run(worker={"concurrency": 1}, **limit)
    (first,) = workers.pids()
    seen = {int(app.remote(name, retention=600).delay(**values).result(PATIENCE_S)) for name, values in calls}

    workers.wait_for(why)
    while len(seen) < 2:
        seen.add(int(app.remote("whoami", retention=600).delay().result(PATIENCE_S)))
    assert first in seen
    until_blocking(lambda: not is_alive(first))
    assert first not in workers.pids(), "it has closed what it had opened"
    assert not redis_server.client.exists("asynq:{default}:retry")
    assert workers.stop() == 0


def test_telemetry_is_sent_before_a_process_ends(run: Any, app: TaskQ, tmp_path: Path) -> None:
    """Also where its exporter would send only an hour later: at replacement, and at the end."""
    spans = tmp_path / "spans"
    workers = run(max_tasks=1, worker={"concurrency": 1}, environment={"SPANS_FILE": str(spans)})
    ran_in = [app.remote("whoami", retention=600).delay().result(PATIENCE_S)]
    until_blocking(lambda: spans.exists() and f"process default {ran_in[0]}\n" in spans.read_text())

    ran_in.append(app.remote("whoami", retention=600).delay().result(PATIENCE_S))
    assert workers.stop() == 0

    assert {f"process default {pid}" for pid in ran_in} <= set(spans.read_text().splitlines())


def test_a_wish_for_a_successor_is_heard_again_when_a_rolling_restart_is_given_up(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys, tmp_path: Path
) -> None:
    """A function never ends and the code is invalid for a while. Once the code is valid, the process is replaced."""
    version = tmp_path / "version"
    version.write_text("one")
    workers = run(environment={"VERSION_FILE": str(version)}, worker={"concurrency": 1})
    (first,) = workers.pids()
    version.unlink()
    handle = app.remote("stubborn", timeout=1, max_retry=0, retention=600).delay(name="s")
    workers.wait_for("still run after they were interrupted")
    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S) == f"{first}", "it works until then"
    workers.signal(signal.SIGHUP)
    workers.wait_for("the rolling restart failed")

    version.write_text("two")

    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")
    until_blocking(lambda: app.remote("version", retention=600).delay().result(PATIENCE_S) == "two")
    until_blocking(lambda: not is_alive(first))
    assert workers.stop() == 0


def test_a_function_that_does_not_end_is_ended_while_no_tasks_are_taken(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """With its process, whose place stays empty until a rolling restart takes tasks again."""
    workers = run(worker={"concurrency": 1})
    (first,) = workers.pids()
    handle = app.remote("stubborn", timeout=3, max_retry=0, retention=600).delay(name="s")
    pid_of(redis_server, "s")

    workers.signal(signal.SIGTSTP)

    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")
    until_blocking(lambda: not is_alive(first))
    assert stored(redis_server, queue, handle.id).error_msg == "context deadline exceeded"
    assert marks(redis_server, "opened") == [f"{first}"]
    later = app.remote("whoami", retention=600).delay()
    workers.signal(signal.SIGHUP)
    assert later.result(PATIENCE_S) != f"{first}"
    assert workers.stop() == 0


def test_a_process_that_takes_too_much_from_the_start_is_not_replaced_for_it(
    run: Any, app: TaskQ, redis_server: RedisServer
) -> None:
    """Its successor would take as much: it is said, once, and the process runs its tasks."""
    workers = run(max_memory=20_000_000, worker={"concurrency": 1})
    (first,) = workers.pids()

    workers.wait_for("before its first task, and max-memory is 20 MB")
    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S) == f"{first}"

    workers.wait_for("is replaced: the process uses")
    assert workers.said.count("before its first task") == 1
    assert workers.stop() == 0


@pytest.mark.parametrize("how", ["stubborn", "hold_lock"])
def test_a_function_that_does_not_end_in_time_costs_its_process(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys, how: str
) -> None:
    """It counts as timed out, once; what runs beside it finishes, or is given back where the whole process is held."""
    workers = run()
    beside = app.remote("wait", retention=600).delay(name="beside", until="go")
    first = pid_of(redis_server, "beside")
    handle = app.remote(how, timeout=1, max_retry=0, retention=600).delay(name="s")
    assert pid_of(redis_server, "s") == first
    if how == "stubborn":  # as many as there are slots
        app.remote(how, timeout=1, max_retry=0, retention=600).delay(name="t")

    until_blocking(lambda: len(marks(redis_server, "opened")) == 2, "a successor")
    redis_server.client.set("go", 1)
    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert stored(redis_server, queue, handle.id).error_msg == "context deadline exceeded"
    assert marks(redis_server, "s") == [f"{first}"]
    assert beside.result(PATIENCE_S)
    assert stored(redis_server, queue, beside.id).retried == (1 if how == "hold_lock" else 0)
    until_blocking(lambda: not is_alive(first))
    problem = "functions still run after they were interrupted"
    workers.wait_for(problem if how == "stubborn" else "an overdue task blocks the process")
    assert workers.stop() == 0


def test_the_supervisor_that_is_killed_leaves_nothing_behind(run: Any, app: TaskQ, redis_server: RedisServer) -> None:
    """Its processes notice, finish what they run and end."""
    workers = run(processes=2)
    handle = app.remote("wait", retention=600).delay(name="w", until="go")
    pid_of(redis_server, "w")
    pids = workers.pids()

    workers.signal(signal.SIGKILL)
    workers.process.wait(PATIENCE_S)
    redis_server.client.set("go", 1)

    assert handle.result(PATIENCE_S)
    until_blocking(lambda: not any(map(is_alive, pids)), "all have ended")
    assert workers.pids() == set(), "gracefully"


def test_a_process_that_is_held_up_ends_also_when_its_supervisor_is_gone(
    run: Any, app: TaskQ, redis_server: RedisServer
) -> None:
    """A watchdog that needs no Python ends it, and says what held it up."""
    workers = run(
        silence=60,
        worker={"lease": 3, "lease_grace": 1},
        environment={"WATCHDOG": "1"},
    )
    app.remote("hold_lock", timeout=600, retention=600).delay(name="s")
    pid = pid_of(redis_server, "s")

    workers.signal(signal.SIGKILL)
    workers.process.wait(PATIENCE_S)

    until_blocking(lambda: not is_alive(pid))
    workers.wait_for("in hold_lock")


def test_signals_are_passed_on(run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys) -> None:
    """SIGTSTP takes no more tasks; SIGTERM waits for what runs; a second one gives it back."""
    workers = run("--processes", "2")
    handle = app.remote("wait", retention=600).delay(name="w", until="go")
    pid_of(redis_server, "w")

    workers.signal(signal.SIGTSTP)
    until_blocking(lambda: {each.status for each in Inspector(app).servers()} == {"stopped"})
    later = app.remote("whoami", retention=600).delay()
    workers.signal(signal.SIGTERM)
    workers.wait_for("stopping; a second signal stops all processes at once")
    workers.signal(signal.SIGTERM)

    assert workers.wait() == 0
    assert [state_of(redis_server, queue, each.id) for each in (handle, later)] == ["pending", "pending"]
    assert stored(redis_server, queue, handle.id).retried == 0


@pytest.mark.parametrize("arguments", [("--concurrency", "1"), ("--processes", "2")])
def test_a_hang_up_of_the_terminal_stops_it(
    run: Any, app: TaskQ, redis_server: RedisServer, arguments: tuple[str, str]
) -> None:
    """As SIGTERM does: what runs is finished."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    workers = run(*arguments, prepare=take_terminal)
    os.close(theirs)
    handle = app.remote("wait", retention=600).delay(name="w", until="go")
    pid = pid_of(redis_server, "w")

    os.close(ours)
    until_blocking(lambda: {each.status for each in Inspector(app).servers()} == {"stopped"})
    redis_server.client.set("go", 1)

    assert handle.result(PATIENCE_S) == f"{pid}"
    assert workers.wait() == 0
    assert "rolling restart" not in workers.said


@pytest.mark.parametrize("arguments", [("--concurrency", "1"), ("--processes", "2")])
def test_a_hang_up_that_was_ignored_at_the_start_stays_so(run: Any, app: TaskQ, arguments: tuple[str, str]) -> None:
    """As `nohup` has it."""
    workers = run(*arguments, prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    before = workers.pids()

    workers.signal(signal.SIGHUP)

    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S)
    assert workers.pids() == before
    assert workers.stop() == 0
    assert "rolling restart" not in workers.said


def test_a_hang_up_that_all_processes_get_is_for_the_supervisor(run: Any, app: TaskQ) -> None:
    """Who sends it to each by name means the rolling restart: the processes go on until they are replaced."""
    workers = run()
    (pid,) = workers.pids()

    os.kill(pid, signal.SIGHUP)

    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S) == f"{pid}"
    assert workers.stop() == 0


def test_a_manager_that_signals_all_processes_forces_nothing(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """One that ends a unit sends SIGTERM to each process, and the supervisor passes on its own: still one request."""
    workers = run()
    handle = app.remote("wait", retention=600).delay(name="w", until="go")
    pid = pid_of(redis_server, "w")

    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGTERM)
    workers.signal(signal.SIGTERM)
    workers.wait_for("stopping; a second signal stops all processes at once")
    assert state_of(redis_server, queue, handle.id) == "active"
    redis_server.client.set("go", 1)

    assert workers.wait() == 0
    assert handle.result(PATIENCE_S) == f"{pid}"


def test_processes_that_never_come_up_end_it(run: Any) -> None:
    """The pause between the attempts grows, the error is logged, and the exit status shows the failure."""
    workers = run("--processes", "2", ready=False, environment={"BREAKS": "1"})

    assert workers.wait() == 1
    assert workers.said.count("starts again in") >= 2
    assert "no process could start in 3 tries each" in workers.said
    assert "this code is broken" in workers.said
    assert "ready\n" not in workers.said


def test_a_process_that_hangs_at_its_start_is_replaced(
    run: Any, app: TaskQ, redis_server: RedisServer, tmp_path: Path
) -> None:
    """What its lifespan opens does not come: it says that it lives, and takes no tasks."""
    hangs = tmp_path / "hangs"
    hangs.touch()
    workers = run(starting=3, ready=False, environment={"HANGS": str(hangs)})
    first = pid_of(redis_server, "opened")

    hangs.unlink()

    workers.wait_for("is killed: the process takes no tasks 3 s after it imported its code")
    workers.wait_for("ready\n")
    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S) != f"{first}"
    assert workers.stop() == 0


def test_a_process_that_will_not_die_is_killed(run: Any) -> None:
    """One that is stopped as a whole hears no signal and no word but SIGKILL."""
    workers = run(ending=1)
    (pid,) = workers.pids()
    os.kill(pid, signal.SIGSTOP)

    workers.signal(signal.SIGTERM)

    assert workers.wait() == 0
    assert not is_alive(pid)
    assert "is killed: the process did not end in time" in workers.said


def test_the_health_of_all_is_told_at_one_port(run: Any, redis_server: RedisServer, tmp_path: Path) -> None:
    held = tmp_path / "held"
    workers = run(processes=2, health_port=0, environment={"HELD": str(held)})
    port = health_port_of(workers)
    _, body = until_blocking(lambda: (found := answer(port))[0] == 200 and found)
    assert (body["status"], body["processes"], body["working"]) == ("ready", 2, 2)
    assert {each["pid"] for each in body["children"]} == workers.pids()
    assert all(each["memory"] > 10_000_000 for each in body["children"])

    victim = body["children"][0]["pid"]
    held.touch()  # no process replaces it before this file is gone
    os.kill(victim, signal.SIGKILL)

    until_blocking(lambda: answer(port)[0] == 503)
    held.unlink()
    _, body = until_blocking(lambda: (found := answer(port))[0] == 200 and found)
    assert body["restarts"] == 1
    assert victim not in {each["pid"] for each in body["children"]}


def test_what_a_process_held_is_given_back_once_redis_is_there_again(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The request is repeated if the store refuses for a while. Tasks taken by another worker are not affected."""
    workers = run(processes=2, worker={"concurrency": 1})
    handle = app.remote("wait", retention=600).delay(name="w", until="go")
    victim = pid_of(redis_server, "w")
    redis_server.client.config_set("maxclients", 1)
    os.kill(victim, signal.SIGKILL)
    workers.wait_for("cannot be returned yet")

    redis_server.client.config_set("maxclients", 10_000)
    redis_server.client.set("go", 1)

    assert handle.result(PATIENCE_S)
    assert stored(redis_server, queue, handle.id).retried == 1


def test_burst_ends_with_the_last_process(run: Any, app: TaskQ, redis_server: RedisServer) -> None:
    handles = [app.remote("whoami", retention=600).delay() for _ in range(20)]

    workers = run(processes=2, burst=True, worker={"burst": True}, ready=False)

    assert workers.wait() == 0
    assert all(handle.refresh().state is TaskState.COMPLETED for handle in handles)


def test_a_process_that_ends_with_status_0_in_the_midst_of_its_work_has_not_done_it(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A function may end its process by any status."""
    handle = app.remote("leave", max_retry=0, retention=600).delay()
    later = app.remote("whoami", retention=600).delay()

    workers = run(burst=True, worker={"burst": True, "concurrency": 1}, ready=False)

    assert workers.wait() == 0
    assert state_of(redis_server, queue, handle.id) == "archived"
    assert later.refresh().state is TaskState.COMPLETED
    assert "ended with status 0 in the middle of its work" in workers.said
