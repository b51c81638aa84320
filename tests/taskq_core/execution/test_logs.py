"""What log records say of the task they belong to, one line each."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from taskq_core import JsonFormatter, LineFormatter, SkipRetry, TaskContext, TaskFilter, TaskQ, add_task_fields
from taskq_core.execution.context import current
from taskq_core.execution.propagation import request_id
from taskq_core.testing import capture, drain
from tests.logged import CONTROLS
from tests.rows import rows

logger = logging.getLogger("tests.logs")
SECRET = "s3cret\nof a payload"


@contextmanager
def written(
    *names: str, formatter: logging.Formatter | None = None, filters: tuple[logging.Filter, ...] = ()
) -> Iterator[io.StringIO]:
    """Capture the logs of some loggers without propagation, because surrogates must not reach pytest's records."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter or JsonFormatter())
    for each in filters:
        handler.addFilter(each)
    loggers = [logging.getLogger(name) for name in names or ("tests.logs",)]
    before = [(each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
        each.propagate = False
    try:
        yield stream
    finally:
        for each, (level, propagate) in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)
            each.propagate = propagate


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@contextmanager
def in_a_task(**facts: Any) -> Iterator[None]:
    token = current.set(TaskContext(id="7", name="a:b", queue="low", retried=2, **facts))
    try:
        yield
    finally:
        current.reset(token)


def test_a_record_of_a_task_has_its_fields() -> None:
    tracer = TracerProvider().get_tracer("tests")
    with written() as stream, in_a_task(headers={"taskq-request-id": "r-1"}):
        logger.info("plain")
        with tracer.start_as_current_span("span") as span:
            logger.warning("traced %d", 5, extra={"more": [1, {"a": None}]})
    plain, traced = lines_of(stream)

    assert plain.pop("time").endswith("+00:00")
    of_task = {"task_id": "7", "task_name": "a:b", "queue": "low", "attempt": 3, "request_id": "r-1"}
    assert plain == {"level": "INFO", "logger": "tests.logs", "message": "plain", **of_task}
    assert (traced["message"], traced["level"], traced["more"]) == ("traced 5", "WARNING", [1, {"a": None}])
    assert traced["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert traced["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_a_record_outside_of_a_task_has_no_task_fields() -> None:
    with written() as stream:
        logger.info("outside")
        token = request_id.set("r-2")
        logger.info("in a request")
        request_id.reset(token)

    outside, in_a_request = lines_of(stream)
    assert outside.keys() == {"time", "level", "logger", "message"}
    assert in_a_request["request_id"] == "r-2"


@rows("formatter", [JsonFormatter(), LineFormatter("%(message)s")])
@rows("text", ["a\nb", "a\r\nb", "\x1b[31mred", CONTROLS, "\ud800", '"}{'], ids=ascii)
def test_a_record_is_always_one_line(formatter: logging.Formatter, text: str) -> None:
    with written(formatter=formatter) as stream:
        logger.info("said %s", text, extra={"more": text})

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert len(line.splitlines()) == 1
    assert line[:-1].isprintable()
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["message"] == f"said {text}"
        assert json.loads(line)["more"] == text


class Odd:
    def __str__(self) -> str:
        raise RuntimeError


def test_values_without_a_json_form_are_written_as_text() -> None:
    loop: list[Any] = []
    loop.append(loop)
    values = (object, {1, 2}, float("nan"), b"bytes", Odd(), loop, {("a",): 1}, 10**400)

    for value in values:
        with written() as stream:
            logger.info("odd", extra={"more": value, "fine": 1})

        (line,) = lines_of(stream)
        assert (line["message"], line["fine"]) == ("odd", 1) or str(line["fine"]) == "1"
        assert "more" in line


def test_exceptions_and_stacks_stay_on_the_line() -> None:
    with written() as stream:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.exception("failed", stack_info=True)

    (line,) = lines_of(stream)
    assert line["exception"].endswith("ValueError: two\nlines")
    assert "test_logs.py" in line["stack"]


def test_no_text_of_an_exception_looks_like_a_record() -> None:
    """The lines of a traceback are indented, and hold nothing that colours a terminal or ends a line elsewhere."""
    with written(formatter=LineFormatter("%(levelname)s %(message)s")) as stream:
        try:
            raise ValueError("two\nERROR forged\r\x1b[31m\x9b\u2028ERROR forged")
        except ValueError:
            logger.exception("failed", stack_info=True)

    first, *more = stream.getvalue().removesuffix("\n").split("\n")
    assert first == "ERROR failed"
    assert "  ERROR forged\\r\\x1b[31m\\x9b\\u2028ERROR forged" in more
    assert all(line.startswith("  ") and line.isprintable() for line in more)
    assert "  Traceback (most recent call last):" in more


def test_the_filter_gives_every_record_all_fields() -> None:
    form = logging.Formatter("%(task_name)s %(attempt)s %(queue)s %(trace_id)s %(request_id)s")
    with written(formatter=form, filters=(TaskFilter(),)) as stream:
        logger.info("")
        with in_a_task():
            logger.info("", extra={"queue": "own"})

    assert stream.getvalue() == "- - - - -\na:b 3 own - -\n"


def test_structlog_receives_the_fields_of_the_task() -> None:
    """The processor is a plain function, and it keeps the fields that the event already has."""
    assert add_task_fields(None, "info", {"event": "outside"}) == {"event": "outside"}
    with in_a_task():
        event = add_task_fields(None, "info", {"event": "inside", "queue": "own"})

    assert event == {"event": "inside", "queue": "own", "task_id": "7", "task_name": "a:b", "attempt": 3}


def test_the_log_level_of_a_failure_depends_on_its_outcome() -> None:
    """WARNING if it is retried, ERROR if it is archived, both with the exception."""
    taskq = TaskQ("redis://nobody:1", defaults={"max_retry": 1, "retry_delay": 0})

    @taskq.task(name="fail")
    def fail(word: str) -> None:
        raise ValueError(word)

    @taskq.task(name="skip")
    def skip(word: str) -> None:
        raise SkipRetry(word)

    with capture(taskq), written("taskq.worker") as stream:
        first = fail.delay(SECRET)
        drain(taskq, advance=60, raises=False)
        second = skip.delay(SECRET)
        drain(taskq, raises=False)

    said = [line for line in lines_of(stream) if "task_id" in line]
    assert [(line["task_id"], line["level"], line["attempt"]) for line in said] == [
        (first.id, "WARNING", 1),
        (first.id, "ERROR", 2),
        (second.id, "ERROR", 1),
    ]
    for line in said:
        assert (line["queue"], line["task_name"]) == ("default", "skip" if line is said[2] else "fail")
        assert "test_logs.py" in line["exception"]
        assert SECRET in line["exception"]
