"""A queue application for tests of several processes. Its tasks record what they do in Redis, under `mark:<name>`.

`python -m tests.processes.supervisor.program` runs its worker like `taskq worker`, with shorter intervals.
"""

import asyncio
import ctypes
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import redis
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from taskq_core import TaskContext, TaskQ, current_task
from taskq_core.supervisor import Limits, Member, SupervisorConfig, channel
from taskq_core.supervisor.supervisor import Supervisor
from taskq_core.worker import Worker, WorkerConfig

if os.environ.get("BREAKS") and channel.VARIABLE in os.environ:
    raise RuntimeError("this code is broken")
VERSION = os.environ.get("VERSION_FILE") and open(os.environ["VERSION_FILE"]).read()  # noqa: SIM115 - at once
app = TaskQ.from_env(defaults={"retention": 600, "max_retry": 3})
notes = redis.from_url(os.environ["NOTES_URL"], client_name="notes")


class FileExporter(SpanExporter):
    """Writes the names of spans to a file."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with open(os.environ["SPANS_FILE"], "a") as file:
            file.writelines(f"{span.name} {os.getpid()}\n" for span in spans)
        return SpanExportResult.SUCCESS


if "SPANS_FILE" in os.environ:
    provider = TracerProvider(shutdown_on_exit=False)  # spans that are not flushed explicitly are lost
    provider.add_span_processor(BatchSpanProcessor(FileExporter(), schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)


def add_mark(name: str, what: str) -> None:
    notes.rpush(f"mark:{name}", what)


@app.task(name="whoami")
def whoami() -> str:
    return f"{os.getpid()}"


@app.task(name="version")
def version() -> str:
    return f"{VERSION}"


@app.task(name="wait")
async def wait(name: str, until: str) -> str:
    """Record the attempt and the process, and wait until a key exists."""
    add_mark(name, f"{current_task().attempt} {os.getpid()}")
    while not await asyncio.to_thread(notes.exists, until):  # noqa: ASYNC110 - a key in Redis
        await asyncio.sleep(0.01)
    return f"{os.getpid()}"


@app.task(name="die", retry_delay=0)
def die(name: str) -> None:
    """Kill the process."""
    add_mark(name, f"{os.getpid()}")
    os._exit(9)


@app.task(name="leave", max_retry=0)
def leave() -> None:
    """Exit the process with status 0."""
    os._exit(0)


@app.task(name="stubborn", timeout=1, retry_delay=0, max_retry=0)
def stubborn(name: str) -> None:
    """Stay in one C call, which no exception can interrupt."""
    add_mark(name, f"{os.getpid()}")
    time.sleep(3600)


@app.task(name="hold_lock", timeout=1, retry_delay=0, max_retry=0)
def hold_lock(name: str) -> None:
    """Run one C call that does not release Python's interpreter lock."""
    add_mark(name, f"{os.getpid()}")
    ctypes.PyDLL(None).usleep(int(3.6e9))


@app.task(name="grow")
def grow(context: TaskContext, megabytes: int) -> str:
    """Take memory and keep it."""
    kept.append(os.urandom(1) * (megabytes << 20))
    return f"{os.getpid()}"


kept: list[bytes] = []


@app.worker_lifespan
def opened():  # type: ignore[no-untyped-def]
    """Record the start and the end of each worker."""
    hangs = os.path.exists(os.environ.get("HANGS", ""))
    add_mark("opened", f"{os.getpid()}")
    if hangs:
        time.sleep(3600)
    while os.path.exists(os.environ.get("HELD", "")):
        time.sleep(0.01)
    yield
    add_mark("closed", f"{os.getpid()}")


def main(settings: dict[str, Any]) -> int:
    """Run a worker process or a supervisor, with the intervals in `settings`."""
    from taskq_core.supervisor import member as member_module
    from taskq_core.supervisor import returns, supervisor
    from taskq_core.worker import executor

    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
    times: tuple[tuple[Any, str, float], ...] = (
        (executor, "STUCK_S", 1.0),
        (returns, "STUCK_S", 1.0),
        (supervisor, "SILENT_S", 3.0),
        (member_module, "REPORT_EVERY_S", 0.2),  # several reports within the timeout, also on a busy machine
        (member_module, "READY_AFTER_S", 30.0),  # long enough for a new process to read its queues
    )
    if "WATCHDOG" in os.environ:
        times += ((member_module, "_WATCHDOG_MARGIN_S", float(os.environ["WATCHDOG"])),)
    for module, name, value in times:
        assert hasattr(module, name)
        setattr(module, name, value)
    config = SupervisorConfig(**settings["supervisor"])
    member = Member.from_environment()
    if member is not None:
        return member.run(Worker(app, WorkerConfig(**settings["worker"])), Limits(config.max_tasks, config.max_memory))
    command = [sys.executable, "-m", "tests.processes.supervisor.program", *sys.argv[1:]]
    return Supervisor(app, config, command, write_line=lambda line: print(line, flush=True)).run()


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
