"""Test tasks in separate processes: their arguments, their end, and their isolation from other tasks."""

import asyncio
import math
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from taskq_core import (
    OversizedResult,
    ResultTooLargeError,
    Settings,
    TaskFailedError,
    TaskProcessError,
    TaskQ,
)
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker, WorkerConfig, processes
from taskq_core.worker.task_process import frames
from tests.processes.worker import process_tasks as tasks
from tests.processes.worker import slow_tasks
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
    SHRUNK,
    Ends,
    Runner,
    receives_cancels,
    state_of,
    stored,
    until,
    until_blocking,
)

pytestmark = pytest.mark.redis


@pytest.fixture
def app(redis_server: RedisServer) -> Any:
    """The application of `process_tasks`, on the test's server."""
    defaults: Any = {"retention": 600, "max_retry": 0}
    tasks.app.configure(Settings(url=redis_server.url, defaults=defaults, enqueue_timeout=PATIENCE_S))
    yield tasks.app
    tasks.app.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_reaped(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_it_runs_in_another_process_which_is_reused(start: Runner) -> None:
    """It runs on the main thread of the process, which runs the next task as well and ends with the worker."""
    worker = await start(concurrency=2)

    first = await (await tasks.who.adelay()).aresult(PATIENCE_S)
    second = await (await tasks.who.adelay()).aresult(PATIENCE_S)

    assert first == second
    assert first["main"]
    assert first["pid"] != os.getpid()
    await start.stop(worker)
    assert not is_alive(first["pid"])


async def test_the_context_of_a_function_in_a_separate_process(
    start: Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    """The function has its context, its middleware and its logging."""
    worker = await start()

    handle = await tasks.about.adelay(text="ä")
    known = await handle.aresult(PATIENCE_S)

    assert known == {
        "text": "ä",
        "id": handle.id,
        "same": True,
        "attempt": 1,
        "worker": worker.token,
        "deadline": True,
        "marked": True,
        "trace": "0" * 32,
    }
    assert "WARNING shop: said in there" in capfd.readouterr().err


async def test_its_trace_continues_in_a_separate_process(start: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    await start()

    with provider.get_tracer("web").start_as_current_span("request") as span:
        handle = await tasks.about.adelay(text="")

    assert (await handle.aresult(PATIENCE_S))["trace"] == f"{span.get_span_context().trace_id:032x}"


async def test_progress_and_intermediate_results_are_stored(start: Runner, tmp_path: Path) -> None:
    await start()
    handle = await tasks.steps.adelay(until=str(tmp_path / "go"))

    info = await until(lambda: handle.arefresh(), "it is there")
    while info.progress is None:
        info = await handle.arefresh()
    (tmp_path / "go").touch()

    assert (info.progress.done, info.progress.total, info.progress.message) == (3, 4, "nearly")
    assert await handle.aresult(PATIENCE_S) == "all"


@pytest.mark.parametrize("how", ["thread", "process"])
async def test_late_reports_of_an_ended_task_do_not_count_for_the_next_task(
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    how: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await start(concurrency=1)
    go, reported, started, end = (tmp_path / name for name in ("go", "reported", "started", "end"))
    left = await tasks.leave_behind.adelay(how=how, until=str(go), reported=str(reported))
    await left.aresult(PATIENCE_S)
    handle = await tasks.wait_for.adelay(started=str(started), until=str(end))
    await until(started.exists)

    go.touch()
    await until(reported.exists)
    end.touch()
    await handle.aresult(PATIENCE_S)

    fields = redis_server.client.hgetall(queue.task(handle.id))
    assert not {b"result", b"progress"} & fields.keys()
    said = capfd.readouterr().err if how == "thread" else caplog.text
    assert "still reports progress or results; they are dropped" in said


RAISED: list[tuple[str, str | None, str]] = [
    ("odd", "archived", "OddError: 7: no luck"),
    ("step", "archived", "StepError: too large"),
    ("os", "archived", "FileNotFoundError: [Errno 2] not there: '/nowhere'"),
    ("exit", "archived", "SystemExit: 3"),
    ("interrupt", "archived", "KeyboardInterrupt"),
    ("mute", "archived", "MuteError: (its text cannot be read)"),
    ("faceless", "archived", "FacelessError: x"),
    ("skip", "archived", "enough"),
    ("result", "archived", "the task returned, but result: "),
    ("retry", "archived", "KeyError: 'k'"),
    ("snooze", "retry", ""),
    ("discard", None, ""),
]
"""The exception of a function, the resulting state of its task, and the start of the stored error."""


async def test_exceptions_have_the_same_effect_as_in_the_worker(
    start: Runner, redis_server: RedisServer, queue: QueueKeys, subtests: pytest.Subtests
) -> None:
    ends = Ends()
    await start(listener=ends)
    for how, state, text in RAISED:
        with subtests.test(how=how):
            handle = await tasks.fail.adelay(how=how)
            await until(lambda: ends.of(handle.id))  # noqa: B023 - awaited in the loop
            await until(lambda: state_of(redis_server, queue, handle.id) == state)  # noqa: B023

            if state is not None:
                assert stored(redis_server, queue, handle.id).error_msg.startswith(text)
            if how == "odd":
                assert isinstance(ends.errors[-1], tasks.OddError)
                (attempt,) = (await handle.arefresh()).attempts
                assert attempt.error == "tests.processes.worker.process_tasks.OddError"
                assert 'raise OddError(7, hint="no luck")' in attempt.traceback


async def test_unsupported_features_raise_an_error(start: Runner, redis_server: RedisServer, queue: QueueKeys) -> None:
    await start()
    handle = await tasks.iterate.adelay()
    await until(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert "StepError: a task with executor='process'" in stored(redis_server, queue, handle.id).error_msg


@pytest.mark.parametrize(
    ("how", "said"), [("exit", "status 3"), ("segfault", "signal 11"), ("kill", "signal 9"), ("spawn", "status 3")]
)
async def test_a_dead_process_fails_only_its_task(
    start: Runner, redis_server: RedisServer, queue: QueueKeys, how: str, said: str, tmp_path: Path
) -> None:
    """This is so even if a child of the process keeps the connection open. The worker and other tasks continue."""
    ends = Ends()
    await start(listener=ends)
    beside = await tasks.steps.adelay(until=str(tmp_path / "go"))
    handle = await (tasks.spawn.adelay() if how == "spawn" else tasks.die.adelay(how=how))
    await until(lambda: state_of(redis_server, queue, handle.id) == "archived")
    (tmp_path / "go").touch()

    assert await beside.aresult(PATIENCE_S) == "all"
    assert said in stored(redis_server, queue, handle.id).error_msg
    error = ends.errors[[each for each, _ in ends.ends].index(handle.id)]
    assert isinstance(error, TaskProcessError)
    assert await (await tasks.compute.adelay(count=10)).aresult(PATIENCE_S)


def test_a_process_that_dies_on_the_loop_of_a_worker_process(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The worker runs as from the command line, with uvloop if installed, which refuses to write to a closed pipe."""
    ends = Ends()
    worker = Worker(app, WorkerConfig(**SHRUNK), listener=ends)
    thread = threading.Thread(target=worker.run)
    thread.start()
    handle = tasks.die.delay(how="exit")
    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")
    worker.stop()
    thread.join(PATIENCE_S)

    assert not thread.is_alive()
    assert [type(error).__name__ for error in ends.errors] == ["TaskProcessError"]


@pytest.mark.parametrize("why", ["timeout", "cancel", "stop"])
async def test_a_call_into_c_is_ended(
    start: Runner, redis_server: RedisServer, queue: QueueKeys, why: str, tmp_path: Path
) -> None:
    """A thread could not be interrupted, so the process is killed."""
    worker = await start(shutdown_grace=0, concurrency=1)
    started = tmp_path / "started"
    handle = await tasks.stuck.using(timeout=5 if why == "timeout" else 600).adelay(started=str(started))
    pid = int(await until(lambda: started.exists() and started.read_text()))

    if why == "cancel":
        await until(lambda: receives_cancels(redis_server))
        await handle.acancel()
    if why == "stop":
        await start.stop(worker)

    state = "pending" if why == "stop" else "archived"
    await until(lambda: state_of(redis_server, queue, handle.id) == state)
    texts = {"timeout": "context deadline exceeded", "cancel": "context canceled", "stop": ""}
    assert stored(redis_server, queue, handle.id).error_msg == texts[why]
    await until(lambda: not is_alive(pid))


async def test_child_processes_of_a_function_are_killed_with_its_process(
    start: Runner, redis_server: RedisServer, tmp_path: Path
) -> None:
    await start()
    started = tmp_path / "started"
    handle = await tasks.stuck_with_child.adelay(started=str(started))
    pid = int(await until(lambda: started.exists() and started.read_text()))
    await until(lambda: receives_cancels(redis_server))

    await handle.acancel()

    await until(lambda: not is_alive(pid))


async def test_a_function_may_clean_up(
    start: Runner, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "INTERRUPT_S", PATIENCE_S)
    await start()
    started, ended = tmp_path / "started", tmp_path / "ended"
    handle = await tasks.clean_up.adelay(started=str(started), ended=str(ended))
    await until(started.exists)
    await until(lambda: receives_cancels(redis_server))

    await handle.acancel()

    assert await until(lambda: ended.exists() and ended.read_text()) == "cleaned"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_from_outside_does_not_end_a_running_process(
    start: Runner, number: signal.Signals, tmp_path: Path
) -> None:
    """Process managers and terminals send signals to all processes. The running task keeps its grace."""
    await start(concurrency=1)
    started, end = tmp_path / "started", tmp_path / "end"
    handle = await tasks.wait_for.adelay(started=str(started), until=str(end))
    pid = int(await until(lambda: started.exists() and started.read_text()))

    os.kill(pid, number)
    first = await tasks.who.adelay()
    end.touch()
    await handle.aresult(PATIENCE_S)
    assert (await first.aresult(PATIENCE_S))["pid"] == pid
    os.kill(pid, number)
    assert (await (await tasks.who.adelay()).aresult(PATIENCE_S))["pid"] == pid


async def test_a_signal_from_outside_does_not_end_a_starting_process(
    start: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = processes._Process.start

    async def signalled(name: Any) -> processes._Process:
        process = await at_once(name)
        os.kill(process.process.pid, signal.SIGTERM)
        return process

    monkeypatch.setattr(processes._Process, "start", signalled)
    await start()

    assert await (await tasks.who.adelay()).aresult(PATIENCE_S)


async def test_a_process_killed_while_idle_is_replaced_without_a_failure(start: Runner) -> None:
    await start()
    first = await (await tasks.who.adelay()).aresult(PATIENCE_S)
    os.kill(first["pid"], signal.SIGKILL)

    second = await (await tasks.who.adelay()).aresult(PATIENCE_S)

    assert second["pid"] != first["pid"]


async def test_a_reused_process_that_does_not_respond_is_killed_at_the_timeout(start: Runner) -> None:
    """The process has imported the task's module, so the timeout of the next task starts at once."""
    await start(concurrency=1)
    pid = (await (await tasks.who.adelay()).aresult(PATIENCE_S))["pid"]
    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(TaskFailedError, match=r"TimeoutError|deadline exceeded"):
        await (await tasks.who.using(timeout=1).adelay()).aresult(PATIENCE_S)

    await until(lambda: not is_alive(pid))


async def test_a_task_that_is_cancelled_during_its_import_does_not_start(
    start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """This is so even if the module catches the interruption."""
    there, started = tmp_path / "there", tmp_path / "started"
    monkeypatch.setenv("SLOW_IMPORT", str(there))
    monkeypatch.setenv("STUBBORN_IMPORT", "1")
    await start(concurrency=1)
    handle = await slow_tasks.late.adelay(started=str(started), until=str(there))
    await until(lambda: (tmp_path / "there.awaited").exists() and receives_cancels(redis_server))

    await handle.acancel()
    await until(there.exists, "the module has caught it")
    await until(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert not started.exists()


@pytest.mark.parametrize("returns", [False, True])
async def test_messages_of_a_dead_process_are_received_although_the_loop_was_blocked(
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    returns: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A coroutine blocks the loop for longer than the timeout of a message. A run that began must not begin again."""
    ends = Ends()
    await start(concurrency=1, listener=ends)
    idle = (await (await tasks.who.adelay()).aresult(PATIENCE_S))["pid"]
    runs = tmp_path / "runs"
    monkeypatch.setattr(processes, "_ALIVE_EVERY_S", 0.05)
    send = processes._Process.send
    held: list[int] = []

    def hold() -> None:
        until_blocking(lambda: not is_alive(idle), "it has ended")
        time.sleep(0.1)  # the timeout of a message has passed as well

    async def send_and_hold(self: Any, kind: bytes, data: bytes) -> None:
        await send(self, kind, data)
        if kind == frames.MESSAGE and not held:
            held.append(self.process.pid)
            asyncio.get_running_loop().call_soon(hold)  # when the worker waits for the message

    monkeypatch.setattr(processes._Process, "send", send_and_hold)
    handle = await tasks.die_once_begun.adelay(runs=str(runs), returns=returns)
    await until(lambda: state_of(redis_server, queue, handle.id) in ("archived", "completed"))

    assert held == [idle]
    assert runs.read_text().split() == [f"{idle}"], "the task ran again"
    assert ends.of(handle.id) == (["completed"] if returns else ["archived"])
    if returns:
        assert await handle.aresult(PATIENCE_S) == "done"
    else:
        assert "status 3" in stored(redis_server, queue, handle.id).error_msg


async def test_processes_killed_while_idle_leave_no_zombies(start: Runner, tmp_path: Path) -> None:
    """This includes processes that would not be used again while others are idle."""
    await start(concurrency=2)
    end = tmp_path / "end"
    started = [tmp_path / "a", tmp_path / "b"]
    handles = [await tasks.wait_for.adelay(started=str(each), until=str(end)) for each in started]
    pids = {int(await until(lambda: each.exists() and each.read_text())) for each in started}  # noqa: B023 - at once
    end.touch()
    for handle in handles:
        await handle.aresult(PATIENCE_S)

    last = (await (await tasks.who.adelay()).aresult(PATIENCE_S))["pid"]
    (other,) = pids - {last}
    os.kill(other, signal.SIGKILL)

    async def is_gone() -> bool:
        """The kernel may take a moment, and the worker reaps ended processes with the next task."""
        assert (await (await tasks.who.adelay()).aresult(PATIENCE_S))["pid"] == last
        return is_reaped(other)

    await until(is_gone)


async def test_a_process_is_replaced_after_so_many_tasks(start: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RUNS_MOST", 2)
    await start(concurrency=1)

    pids = [(await (await tasks.who.adelay()).aresult(PATIENCE_S))["pid"] for _ in range(4)]

    assert pids[0] == pids[1] != pids[2] == pids[3]
    await until(lambda: not is_alive(pids[0]))


async def test_there_are_no_more_processes_than_slots(start: Runner) -> None:
    await start(concurrency=2)
    handles = [await tasks.who.adelay() for _ in range(20)]

    pids = {(await handle.aresult(PATIENCE_S))["pid"] for handle in handles}

    assert len(pids) <= 2


async def test_a_process_that_does_not_start_fails_the_attempt(
    start: Runner, app: TaskQ, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "process_set_up", "no_such_module:set_up", raising=False)
    await start()
    handle = await tasks.who.adelay()
    await until(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert "did not start" in stored(redis_server, queue, handle.id).error_msg


@pytest.mark.parametrize("has_deadline", [False, True])
async def test_the_timeout_starts_after_the_process_and_the_import(
    start: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_deadline: bool
) -> None:
    """The deadline applies also before."""
    at_once = processes._Process.start
    may_start = asyncio.Event()

    async def slowly(name: Any) -> processes._Process:
        await may_start.wait()
        return await at_once(name)

    monkeypatch.setattr(processes._Process, "start", slowly)
    there, started, end = (tmp_path / name for name in ("there", "started", "end"))
    monkeypatch.setenv("SLOW_IMPORT", str(there))
    worker = await start()
    options: dict[str, Any] = {"deadline": datetime.now(UTC) + timedelta(hours=1)} if has_deadline else {}
    task = slow_tasks.late.using(timeout=600, **options)
    handle = await task.adelay(started=str(started), until=str(end))
    (run,) = await until(lambda: worker.runs)

    def is_held() -> bool:
        left_s = run.ends_by - time.monotonic()
        return 3500 < left_s < 3700 if has_deadline else left_s == math.inf

    await until(is_held, "its time stands still")
    held = run.ends_by
    may_start.set()
    await until((tmp_path / "there.awaited").exists)
    assert run.ends_by == held
    before = time.monotonic()
    there.touch()
    await until(started.exists)
    assert before + 600 <= run.ends_by < before + 3000
    end.touch()
    await handle.aresult(PATIENCE_S)


async def test_an_import_that_takes_too_long_fails_the_attempt(
    start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names the module. A process that does not start in time has an error as well."""
    monkeypatch.setenv("SLOW_IMPORT", str(tmp_path / "never"))
    await start(concurrency=1)
    pid = (await (await tasks.who.adelay()).aresult(PATIENCE_S))["pid"]
    monkeypatch.setattr(processes, "BOOT_S", 0.01)

    texts = []
    for _ in range(2):
        handle = await slow_tasks.late.adelay(started="", until="")
        await until(lambda: state_of(redis_server, queue, handle.id) == "archived")  # noqa: B023 - at once
        texts.append(stored(redis_server, queue, handle.id).error_msg)

    assert "the process did not import tests.processes.worker.slow_tasks within 0.01 s" in texts[0]
    assert "the process did not start within 0.01 s" in texts[1]
    await until(lambda: not is_alive(pid))


async def test_a_separate_process_uses_the_broker_of_the_worker(start: Runner, redis_server: RedisServer) -> None:
    """Tasks that it enqueues go to the broker of its own task, whatever URL the code has."""
    await start()

    other_id = await (await tasks.enqueue.adelay()).aresult(PATIENCE_S)

    assert await until(lambda: redis_server.client.exists(f"asynq:{{default}}:t:{other_id}"))


async def coroutine(text: str) -> None: ...


async def test_results_over_the_limit_never_reach_the_worker(start: Runner) -> None:
    """The process sends only the size of such results, returned or intermediate."""
    await start()
    returned = await tasks.large.adelay(returned=11, written=3)
    written = await tasks.large.adelay(returned=0, written=11)

    for handle, size in ((returned, 13), (written, 11)):
        with pytest.raises(ResultTooLargeError):
            await handle.aresult(PATIENCE_S)
        assert (await handle.arefresh()).oversized_result == OversizedResult(size=size, limit=10)


async def test_steps_are_refused_in_a_separate_process(app: TaskQ, start: Runner) -> None:
    await start()
    handle = await tasks.durable.adelay()

    errors = await handle.aresult(timeout=60)

    assert len(errors) == 5
    assert {each.partition(":")[0] for each in errors} == {"a task with executor='process' has no steps"}
