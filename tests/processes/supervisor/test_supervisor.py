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
    """A supervisor and its processes: `taskq worker` with arguments, or `program.py` with shorter intervals."""

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
        self.output = ""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        if ready:
            self.wait_for("ready\n")

    @staticmethod
    def _prepare(prepare: Callable[[], object] | None) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, which ignores SIGHUP
        if prepare is not None:
            prepare()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, text: str, times: int = 1) -> None:
        until_blocking(
            lambda: (
                self.output.count(text) >= times or (self.process.poll() is not None and not self._reading.is_alive())
            ),
            f"{text!r} in {self.output}",
        )
        assert self.output.count(text) >= times, f"{text!r} not in:\n{self.output}"

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
        """Return the pids of processes that have started and not ended, according to their records."""
        opened, closed = marks(self.server, "opened"), marks(self.server, "closed")
        return {int(pid) for pid in opened} - {int(pid) for pid in closed}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.pids():  # left over from a failed test
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
    """Return the pid of the process that wrote the last record."""
    return int(until_blocking(lambda: marks(server, name), f"mark {name}")[-1].split()[-1])


def health_port_of(workers: Workers) -> int:
    workers.wait_for("health endpoints: ")
    return int(workers.output.partition("health endpoints: http://127.0.0.1:")[2].partition("/")[0])


def answer(port: int) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_killed_process_is_replaced_and_its_tasks_are_returned_at_once(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The tasks do not wait for the end of their leases, the attempt counts, and the other process is not affected."""
    workers = run("--processes", "2", "--concurrency", "1")
    handles = [app.remote("wait", retention=600).delay(name=f"w{number}", until="go") for number in range(2)]
    victim, other = pid_of(redis_server, "w0"), pid_of(redis_server, "w1")
    assert victim != other, "each process must take one task"
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
    assert workers.pids() == {victim}, "the other processes did not close their resources"


def test_a_task_that_kills_its_process_is_archived(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """It is archived after its attempts. From the second loss on there is a delay between attempts."""
    run(processes=2)
    handle = app.remote("die", retention=600, max_retry=1).delay(name="d")

    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert len(marks(redis_server, "d")) == 2
    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S), "the worker does not run other tasks"


def test_a_rolling_restart_leaves_no_gap_and_reloads_code(
    run: Any, app: TaskQ, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A long task continues in its old process. At every check the requested number of processes takes tasks."""
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
    while len(workers.pids() - before) < 2 or workers.output.count("finishes its tasks") < 2:
        assert app.remote("version", retention=600).delay().result(PATIENCE_S) in ("one", "two")
        status, body = answer(port)
        assert (status, body["working"]) == (200, 2), body

    # An old process that has just got the request to finish may still take a task.
    until_blocking(lambda: app.remote("version", retention=600).delay().result(PATIENCE_S) == "two")
    assert answer(port)[0] == 200
    assert is_alive(old), "the old process did not finish its task"
    redis_server.client.set("go", 1)
    assert long.result(PATIENCE_S) == f"{old}"
    until_blocking(lambda: not workers.pids() & before, "the old ones have closed")
    assert not redis_server.client.exists("asynq:{default}:retry", "asynq:{default}:archived")
    assert workers.stop() == 0


def test_a_rolling_restart_with_broken_code_is_aborted(run: Any, app: TaskQ, tmp_path: Path) -> None:
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


def test_an_aborted_rolling_restart_of_a_paused_worker_leaves_no_process_that_takes_tasks(
    run: Any, app: TaskQ, tmp_path: Path
) -> None:
    """The old processes take no tasks. Health and log report that no process does, until the code is valid again."""
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
    assert "the other processes are not replaced" not in workers.output
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
def test_a_process_is_replaced_at_its_limits(
    run: Any, app: TaskQ, redis_server: RedisServer, limit: dict[str, int], calls: list[tuple[str, Any]], why: str
) -> None:
    """This is so also for a single process. Its successor takes tasks before it ends, and no task runs twice."""
    workers = run(worker={"concurrency": 1}, **limit)
    (first,) = workers.pids()
    pids = {int(app.remote(name, retention=600).delay(**values).result(PATIENCE_S)) for name, values in calls}

    workers.wait_for(why)
    while len(pids) < 2:
        pids.add(int(app.remote("whoami", retention=600).delay().result(PATIENCE_S)))
    assert first in pids
    until_blocking(lambda: not is_alive(first))
    assert first not in workers.pids(), "the replaced process did not close its resources"
    assert not redis_server.client.exists("asynq:{default}:retry")
    assert workers.stop() == 0


def test_telemetry_is_sent_before_a_process_ends(run: Any, app: TaskQ, tmp_path: Path) -> None:
    """This is so at a replacement and at the end, even if the exporter's interval is an hour."""
    spans = tmp_path / "spans"
    workers = run(max_tasks=1, worker={"concurrency": 1}, environment={"SPANS_FILE": str(spans)})
    ran_in = [app.remote("whoami", retention=600).delay().result(PATIENCE_S)]
    until_blocking(lambda: spans.exists() and f"process default {ran_in[0]}\n" in spans.read_text())

    ran_in.append(app.remote("whoami", retention=600).delay().result(PATIENCE_S))
    assert workers.stop() == 0

    assert {f"process default {pid}" for pid in ran_in} <= set(spans.read_text().splitlines())


def test_a_requested_replacement_is_repeated_after_an_aborted_rolling_restart(
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
    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S) == f"{first}", (
        "the old process must take tasks until then"
    )
    workers.signal(signal.SIGHUP)
    workers.wait_for("the rolling restart failed")

    version.write_text("two")

    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")
    until_blocking(lambda: app.remote("version", retention=600).delay().result(PATIENCE_S) == "two")
    until_blocking(lambda: not is_alive(first))
    assert workers.stop() == 0


def test_a_hanging_function_is_ended_while_the_worker_is_paused(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Its process is killed, and replaced only when a rolling restart takes tasks again."""
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


def test_a_process_that_needs_too_much_memory_from_its_start_is_not_replaced(
    run: Any, app: TaskQ, redis_server: RedisServer
) -> None:
    """Its successor would need as much memory. The supervisor logs this once, and the process runs its tasks."""
    workers = run(max_memory=20_000_000, worker={"concurrency": 1})
    (first,) = workers.pids()

    workers.wait_for("before its first task, and max-memory is 20 MB")
    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S) == f"{first}"

    workers.wait_for("is replaced: the process uses")
    assert workers.output.count("before its first task") == 1
    assert workers.stop() == 0


@pytest.mark.parametrize("how", ["stubborn", "hold_lock"])
def test_the_process_of_a_function_that_exceeds_its_timeout_is_replaced(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys, how: str
) -> None:
    """Its task is timed out once. Other tasks of the process finish, or are returned if the process is blocked."""
    workers = run()
    beside = app.remote("wait", retention=600).delay(name="beside", until="go")
    first = pid_of(redis_server, "beside")
    handle = app.remote(how, timeout=1, max_retry=0, retention=600).delay(name="s")
    assert pid_of(redis_server, "s") == first
    if how == "stubborn":  # one for each slot
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


def test_processes_of_a_killed_supervisor_end(run: Any, app: TaskQ, redis_server: RedisServer) -> None:
    """The processes detect this, finish their tasks and exit."""
    workers = run(processes=2)
    handle = app.remote("wait", retention=600).delay(name="w", until="go")
    pid_of(redis_server, "w")
    pids = workers.pids()

    workers.signal(signal.SIGKILL)
    workers.process.wait(PATIENCE_S)
    redis_server.client.set("go", 1)

    assert handle.result(PATIENCE_S)
    until_blocking(lambda: not any(map(is_alive, pids)), "all have ended")
    assert workers.pids() == set(), "the process did not finish its task"


def test_a_hanging_process_ends_when_its_supervisor_was_killed(run: Any, app: TaskQ, redis_server: RedisServer) -> None:
    """A watchdog that does not need the GIL ends it, and logs where it was blocked."""
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


def test_signals_are_forwarded(run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys) -> None:
    """SIGTSTP stops taking tasks, SIGTERM waits for running tasks, and a second SIGTERM returns them."""
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
def test_sighup_from_the_terminal_stops_the_worker(
    run: Any, app: TaskQ, redis_server: RedisServer, arguments: tuple[str, str]
) -> None:
    """It has the same effect as SIGTERM: running tasks are finished."""
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
    assert "rolling restart" not in workers.output


@pytest.mark.parametrize("arguments", [("--concurrency", "1"), ("--processes", "2")])
def test_an_ignored_sighup_stays_ignored(run: Any, app: TaskQ, arguments: tuple[str, str]) -> None:
    """This is so under `nohup`."""
    workers = run(*arguments, prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    before = workers.pids()

    workers.signal(signal.SIGHUP)

    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S)
    assert workers.pids() == before
    assert workers.stop() == 0
    assert "rolling restart" not in workers.output


def test_sighup_to_all_processes_starts_a_rolling_restart(run: Any, app: TaskQ) -> None:
    """`pkill -HUP` sends the signal to all processes. They continue until they are replaced."""
    workers = run()
    (pid,) = workers.pids()

    os.kill(pid, signal.SIGHUP)

    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S) == f"{pid}"
    assert workers.stop() == 0


def test_sigterm_to_all_processes_is_one_graceful_stop(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A process manager may send SIGTERM to each process, and the supervisor forwards its own. This is one request."""
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


def test_a_worker_whose_processes_never_start_ends(run: Any) -> None:
    """The pause between the attempts grows, the error is logged, and the exit status shows the failure."""
    workers = run("--processes", "2", ready=False, environment={"BREAKS": "1"})

    assert workers.wait() == 1
    assert workers.output.count("starts again in") >= 2
    assert "no process could start in 3 tries each" in workers.output
    assert "this code is broken" in workers.output
    assert "ready\n" not in workers.output


def test_a_process_that_hangs_at_its_start_is_replaced(
    run: Any, app: TaskQ, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Its lifespan hangs: the process reports that it is alive, but takes no tasks."""
    hangs = tmp_path / "hangs"
    hangs.touch()
    workers = run(starting=3, ready=False, environment={"HANGS": str(hangs)})
    first = pid_of(redis_server, "opened")

    hangs.unlink()

    workers.wait_for("is killed: the process takes no tasks 3 s after it imported its code")
    workers.wait_for("ready\n")
    assert app.remote("whoami", retention=600).delay().result(PATIENCE_S) != f"{first}"
    assert workers.stop() == 0


def test_a_process_that_does_not_end_is_killed(run: Any) -> None:
    """A process that is frozen reacts only to SIGKILL."""
    workers = run(ending=1)
    (pid,) = workers.pids()
    os.kill(pid, signal.SIGSTOP)

    workers.signal(signal.SIGTERM)

    assert workers.wait() == 0
    assert not is_alive(pid)
    assert "is killed: the process did not end in time" in workers.output


def test_one_port_reports_the_health_of_all_processes(run: Any, redis_server: RedisServer, tmp_path: Path) -> None:
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


def test_tasks_of_a_dead_process_are_returned_once_redis_is_available(
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


def test_a_burst_worker_ends_with_its_last_process(run: Any, app: TaskQ, redis_server: RedisServer) -> None:
    handles = [app.remote("whoami", retention=600).delay() for _ in range(20)]

    workers = run(processes=2, burst=True, worker={"burst": True}, ready=False)

    assert workers.wait() == 0
    assert all(handle.refresh().state is TaskState.COMPLETED for handle in handles)


def test_a_process_that_exits_with_status_0_during_a_task_has_not_completed_it(
    run: Any, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A function may exit its process with any status."""
    handle = app.remote("leave", max_retry=0, retention=600).delay()
    later = app.remote("whoami", retention=600).delay()

    workers = run(burst=True, worker={"burst": True, "concurrency": 1}, ready=False)

    assert workers.wait() == 0
    assert state_of(redis_server, queue, handle.id) == "archived"
    assert later.refresh().state is TaskState.COMPLETED
    assert "ended with status 0 in the middle of its work" in workers.output
