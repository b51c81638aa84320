"""Test the lines of successful runs, which the worker writes without log records where nobody could see a record."""

import io
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.cli.running import WorkerFormatter
from taskq_core.service.line_handler import LineHandler
from taskq_core.testing import capture, drain

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
FACTS = r"id=\S+ attempt=1/1 duration=0\.\d{3}s"
taskq_logger = logging.getLogger("taskq")


class Stream(io.StringIO):
    """Records the texts of its calls of `write`."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


class Log:
    """The log of `taskq worker`, and further handlers of the project."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.handler = LineHandler(WorkerFormatter("%(asctime)s [7] %(levelname)s %(name)s: %(message)s"), "[7] ")
        self.handler.setStream(self.stream)
        self.handlers: list[logging.Handler] = [self.handler]

    @property
    def runs(self) -> list[str]:
        """The lines of runs."""
        return runs_of(self.stream.getvalue())

    def run(self, count: int, *, name: str = "work", fails_at: int = -1) -> list[str]:
        """Run some tasks one after another in a worker, and return the outcomes of the runs.

        Only the handlers of this object receive the worker's records.
        """
        taskq = TaskQ("redis://nobody:1", defaults={"max_retry": 0})

        @taskq.task(name=name)
        async def work(number: int) -> None:
            if number == fails_at:
                raise ValueError("no luck")

        before = taskq_logger.handlers[:], taskq_logger.propagate, taskq_logger.level
        taskq_logger.handlers[:] = self.handlers
        taskq_logger.propagate = False
        taskq_logger.setLevel(logging.INFO)
        try:
            with capture(taskq):
                for number in range(count):
                    work.delay(number)
                return [run.outcome for run in drain(taskq, raises=False)]
        finally:
            taskq_logger.handlers[:], taskq_logger.propagate, level = before
            taskq_logger.setLevel(level)


class Records(logging.Handler):
    """A handler of the project."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def runs_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if "task completed" in line or "task failed" in line]


def test_the_lines_of_many_runs_are_written_together() -> None:
    log = Log()

    log.run(5)

    lines = log.runs
    assert len(lines) == 5
    assert all(
        re.fullmatch(rf"{TIME} \[7\] INFO taskq\.worker: task completed: name=work {FACTS}", each) for each in lines
    )
    assert sum("task completed" in each for each in log.stream.writes) == 1


def test_a_line_is_the_same_with_and_without_a_record() -> None:
    log = Log()
    log.run(1)
    log.handlers.append(Records())  # so that the first handler gets records too
    log.run(1)

    without, with_record = (re.sub(rf"{TIME}|id=\S+|\d\.\d+s", "?", line) for line in log.runs)
    assert without == with_record


def test_earlier_runs_are_written_before_a_failure() -> None:
    log = Log()

    log.run(6, fails_at=3)

    ends = [line.split(": ")[1] for line in log.runs]
    assert ends == ["task completed"] * 3 + ["task failed"] + ["task completed"] * 2


def _add_filter_to_logger(handler: logging.Handler, filter_: Callable[[logging.LogRecord], bool]) -> Callable[[], None]:
    logger = logging.getLogger("taskq.worker")
    logger.addFilter(filter_)
    return lambda: logger.removeFilter(filter_)


def _add_filter_to_handler(
    handler: logging.Handler, filter_: Callable[[logging.LogRecord], bool]
) -> Callable[[], None]:
    handler.addFilter(filter_)
    return lambda: handler.removeFilter(filter_)


def _set_factory(handler: logging.Handler, filter_: Callable[[logging.LogRecord], bool]) -> Callable[[], None]:
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        filter_(record)
        return record

    logging.setLogRecordFactory(factory)
    return lambda: logging.setLogRecordFactory(before)


@pytest.mark.parametrize("change", [_add_filter_to_logger, _add_filter_to_handler, _set_factory])
def test_filters_and_factories_of_the_project_get_the_record_of_each_run(
    change: Callable[[logging.Handler, Callable[[logging.LogRecord], bool]], Callable[[], None]],
) -> None:
    log = Log()
    seen: list[str] = []

    def see(record: logging.LogRecord) -> bool:
        seen.append(record.getMessage())
        return True

    undo = change(log.handler, see)
    try:
        log.run(3)
    finally:
        undo()

    assert len(runs_of("\n".join(seen))) == 3
    assert len(log.runs) == 3


def test_handlers_of_the_project_get_the_record_of_each_run() -> None:
    log, project = Log(), Records()
    log.handlers.append(project)

    log.run(3)

    assert [vars(each)["task_name"] for each in project.records if "task completed" in each.getMessage()] == [
        "work"
    ] * 3
    assert len(log.runs) == 3


def test_another_formatter_of_the_project_formats_each_run() -> None:
    log = Log()
    log.handler.setFormatter(logging.Formatter("mine: %(message)s"))

    log.run(2)

    assert [line.split(" name=")[0] for line in log.runs] == ["mine: task completed:"] * 2


def test_a_name_with_control_characters_is_escaped() -> None:
    log = Log()

    log.run(1, name="work\u202e")

    (line,) = log.runs
    assert r"name=work\u202e" in line


class BrokenPipe(Stream):
    """A stream whose reader is gone: the buffer takes the text, and writing the buffer fails."""

    def flush(self) -> None:
        raise BrokenPipeError("nobody reads this pipe")


@pytest.mark.parametrize("lines_max", [1, 256])  # the lines are written after each run, or later
def test_lines_that_cannot_be_written_do_not_fail_the_tasks(
    lines_max: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("taskq_core.worker.run_log.LINES_MAX", lines_max)
    log = Log()
    log.handler.setStream(BrokenPipe())

    outcomes = log.run(2)

    assert outcomes == ["completed"] * 2
    assert "nobody reads this pipe" in capsys.readouterr().err


def test_lines_for_a_closed_stream_do_not_fail_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.stream.close()

    log.run(2)

    assert "I/O operation on closed file" in capsys.readouterr().err
