"""`context.iterate` and `checkpoint`: a task goes on where it was, in every way a task can be run here."""

# ruff: noqa: PERF401, PERF402 - loops are what is tested

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from taskq_core import (
    ConfigurationError,
    Retry,
    Snooze,
    StepError,
    TaskContext,
    TaskInterrupted,
    TaskPaused,
    TaskQ,
    csv_rows,
    current_task,
)
from taskq_core.broker.operations import operation, steps
from taskq_core.execution.step_record import read_result
from taskq_core.inspector import Inspector
from taskq_core.testing import Captured, capture, drain, eager, interrupt_after
from tests.rows import rows


@pytest.fixture
def app() -> TaskQ:
    return TaskQ("redis://nobody:1", defaults={"max_retry": 3, "retry_delay": 0})


@pytest.fixture
def tasks(app: TaskQ) -> Iterator[Captured]:
    with capture(app) as tasks:
        yield tasks


def cursors_of(app: TaskQ, task_id: str) -> Any:
    record = app.runtime.runner.run(steps.read_steps(app.runtime.keys.queue("default"), task_id))
    return json.loads(read_result(record[steps.POSITION])[2]) if steps.POSITION in record else None


def outcomes(tasks: Captured) -> list[str]:
    return [run.outcome for run in tasks.runs]


# --- stops ------------------------------------------------------------------------------------------------------------


def run_here(app: TaskQ, task: Any) -> list[str]:
    with capture(app) as tasks:
        task.delay()
        tasks.run()
    return outcomes(tasks)


def run_at_once(app: TaskQ, task: Any) -> list[str]:
    with eager(app) as tasks:
        task.delay()
    return outcomes(tasks)


def run_by_a_worker(app: TaskQ, task: Any) -> list[str]:
    with capture(app):
        task.delay()
        return [run.outcome for run in drain(app)]


WAYS = pytest.mark.parametrize("run", [run_here, run_at_once, run_by_a_worker])


@WAYS
def test_a_stopped_task_continues_with_the_next_item(app: TaskQ, run: Callable[[TaskQ, Any], list[str]]) -> None:
    seen: list[int] = []
    attempts: list[int] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        attempts.append(context.attempt)
        for number in context.iterate(range(10)):
            seen.append(number)

    with interrupt_after(3) as stops:
        ended = run(app, go)

    assert seen == list(range(10))
    assert stops.count == 3
    assert ended == ["requeued"] * 3 + ["completed"]
    assert attempts == [1] * 4, "a stop uses no attempt"


@WAYS
def test_a_stopped_coroutine_continues_with_the_next_item(app: TaskQ, run: Callable[[TaskQ, Any], list[str]]) -> None:
    seen: list[int] = []

    async def numbers(after: int | None) -> AsyncIterator[int]:
        for number in range(0 if after is None else after + 1, 7):
            yield number

    @app.task(name="go")
    async def go() -> None:
        async for number in current_task().iterate(numbers, cursor=lambda number: number):
            seen.append(number)
        async for number in current_task().iterate([7, 8]):
            seen.append(number)

    with interrupt_after(2) as stops:
        run(app, go)

    assert seen == list(range(9))
    assert stops.count == 4


def test_a_loop_stops_no_more_often_than_requested(app: TaskQ, tasks: Captured) -> None:
    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for _ in context.iterate(range(10)):
            pass

    go.delay()
    with interrupt_after(1, times=2) as stops:
        tasks.run()

    assert stops.count == 2
    assert outcomes(tasks) == ["requeued", "requeued", "completed"]


@rows("given", [{"items": 0}, {"items": 1.5}, {"items": True}, {"items": 1, "times": 0}])
def test_an_invalid_number_of_stops_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"must be at least 1, got"), interrupt_after(**given):
        pass


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), Retry(), Retry(after=0), Snooze(after=0)], ids=repr)
def test_a_retry_starts_with_the_item_that_failed(app: TaskQ, tasks: Captured, error: Exception) -> None:
    seen: list[int] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for number in context.iterate(range(5)):
            seen.append(number)
            if seen == [0, 1, 2]:
                raise error

    go.delay()
    tasks.run(advance=10, raises=False)

    assert seen == [0, 1, 2, 2, 3, 4]
    assert outcomes(tasks)[-1] == "completed"


def test_an_archived_task_that_is_run_again_continues_where_it_failed(app: TaskQ, tasks: Captured) -> None:
    seen: list[int] = []

    @app.task(name="go", max_retry=0)
    def go(context: TaskContext) -> None:
        for number in context.iterate(range(4)):
            if number == 2 and len(seen) == 2:
                seen.append(-1)
                raise ValueError
            seen.append(number)

    handle = go.delay()
    tasks.run(raises=False)
    assert cursors_of(app, handle.id) == {"/0": [2, 2, False]}
    Inspector(app).run_task("default", handle.id)
    tasks.run()

    assert seen == [0, 1, -1, 2, 3]


@pytest.mark.parametrize("retention", [0, 60])
def test_the_cursor_is_deleted_at_the_end(app: TaskQ, tasks: Captured, retention: int) -> None:
    @app.task(name="go", retention=retention)
    def go(context: TaskContext) -> None:
        for _ in context.iterate(range(4), every=1):
            pass

    handle = go.delay()
    with interrupt_after(3):
        tasks.run()

    assert cursors_of(app, handle.id) is None


# --- several loops ----------------------------------------------------------------------------------------------------


def test_consecutive_loops_have_separate_cursors(app: TaskQ, tasks: Captured) -> None:
    seen: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for number in context.iterate([1, 2]):
            seen.append(number)
        for letter in context.iterate(["a", "b", "c"]):
            seen.append(letter)
        for _ in context.iterate([]):
            seen.append("never")

    go.delay()
    with interrupt_after(1):
        tasks.run()

    assert seen == [1, 2, "a", "b", "c"]


def test_named_loops_can_be_reordered_between_releases(app: TaskQ, tasks: Captured) -> None:
    seen: list[Any] = []
    releases = iter(["old", "new"])

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        if next(releases) == "new":
            for letter in context.iterate(["a"], name="letters"):
                seen.append(letter)
        for number in context.iterate([1, 2, 3], name="numbers"):
            seen.append(number)

    go.delay()
    with interrupt_after(2, times=1):
        tasks.run()

    assert seen == [1, 2, "a", 3]


@pytest.mark.parametrize("items", [1, 2, 3, 4, 5, 6, 7])
def test_a_nested_loop_continues(app: TaskQ, tasks: Captured, items: int) -> None:
    """The inner loop continues with its next item wherever it was stopped, and starts anew with each outer item."""
    seen: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for outer in context.iterate([1, 2, 3]):
            for inner in context.iterate(["a", "b"]):
                seen.append((outer, inner))
            for inner in context.iterate(["c"], name="second"):
                seen.append((outer, inner))

    go.delay()
    with interrupt_after(items):
        tasks.run()

    assert seen == [(outer, inner) for outer in (1, 2, 3) for inner in "abc"]


def test_an_eager_task_inside_a_loop_has_independent_loops(app: TaskQ) -> None:
    seen: list[Any] = []

    @app.task(name="inner")
    def inner(context: TaskContext, outer: int) -> None:
        for letter in context.iterate(["a", "b"]):
            seen.append((outer, letter))

    @app.task(name="outer")
    def outer(context: TaskContext) -> None:
        for number in context.iterate([1, 2]):
            inner.delay(number)

    with eager(app), interrupt_after(1):
        outer.delay()

    assert seen == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_code_outside_the_loop_runs_each_time(app: TaskQ, tasks: Captured) -> None:
    seen: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        seen.append("before")
        for number in context.iterate([1, 2]):
            seen.append(number)
        seen.append("after")

    go.delay()
    with interrupt_after(1):
        tasks.run()

    assert seen == ["before", 1, "before", 2, "before", "after"]


def test_a_loop_that_exits_early_keeps_the_cursor_of_its_item(app: TaskQ, tasks: Captured) -> None:
    seen: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for number in context.iterate([1, 2, 3]):
            seen.append(number)
            if number == 2:
                break
        for letter in context.iterate(["a", "b"]):
            seen.append(letter)

    go.delay()
    with interrupt_after(2, times=1):
        tasks.run()

    assert seen == [1, 2, "a", 2, "b"]


@pytest.mark.parametrize("how", ["break", "raise"])
def test_an_async_loop_that_exits_early_does_not_enclose_the_next_loop(app: TaskQ, tasks: Captured, how: str) -> None:
    seen: list[Any] = []

    async def go_through_two(context: TaskContext) -> None:
        left = 2
        async for number in context.iterate([1, 2, 3]):
            seen.append(number)
            left -= 1
            if not left and how == "break":
                break
            if not left:
                raise LookupError

    @app.task(name="go")
    async def go(context: TaskContext) -> None:
        with suppress(LookupError):
            await go_through_two(context)
        async for letter in context.iterate(["a", "b", "c"]):
            seen.append(letter)

    go.delay()
    with interrupt_after(2, times=1):
        tasks.run()

    assert seen == [1, 2, "a", 2, 3, "b", "c"], "the second loop goes on, whatever the first has gone through meanwhile"


# --- batches, time, progress ------------------------------------------------------------------------------------------


@WAYS
def test_batches_are_processed_completely(app: TaskQ, run: Callable[[TaskQ, Any], list[str]]) -> None:
    seen: list[list[int]] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for batch in context.iterate(range(7), batch_size=3):
            seen.append(batch)

    with interrupt_after(1) as stops:
        run(app, go)

    assert seen == [[0, 1, 2], [3, 4, 5], [6]]
    assert stops.count == 3


def test_a_long_loop_releases_its_slot_so_that_other_tasks_run(app: TaskQ, tasks: Captured) -> None:
    seen: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for number in context.iterate([1, 2, 3], for_at_most=1e-9):
            seen.append(number)

    @app.task(name="other")
    def other() -> None:
        seen.append("other")

    go.delay()
    other.delay()
    tasks.run(advance=60)

    assert seen == [1, "other", 2, 3], "at least one item each time"
    assert outcomes(tasks) == ["snoozed", "completed", "snoozed", "snoozed", "completed"]
    assert {run.attempt for run in tasks.runs} == {1}


def test_a_loop_reports_progress_and_continues_its_count(app: TaskQ, tasks: Captured) -> None:
    told: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for _ in context.iterate(range(6), batch_size=2):
            for _ in context.iterate([1, 2]):
                pass
            told.append(handle.refresh().progress)

    handle = go.delay()
    with interrupt_after(3, times=1):
        tasks.run()

    assert [(each.done, each.total, each.fraction) for each in told] == [(0, 6, 0), (2, 6, 2 / 6), (4, 6, 4 / 6)]


def test_a_loop_does_not_overwrite_the_progress_of_its_task(app: TaskQ, tasks: Captured) -> None:
    @app.task(name="go", retention=60)
    def go(context: TaskContext) -> None:
        for number in context.iterate(range(3), total=7):
            context.progress(0.5 + number, 50, f"number {number}")

    handle = go.delay()
    tasks.run()

    progress = handle.refresh().progress
    assert progress is not None
    assert (progress.done, progress.total, progress.message) == (2.5, 50, "number 2")


# --- checkpoints ------------------------------------------------------------------------------------------------------


@WAYS
def test_a_task_continues_at_its_checkpoint(app: TaskQ, run: Callable[[TaskQ, Any], list[str]]) -> None:
    seen: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        page = context.cursor() or {"page": 0}
        while page["page"] < 5:
            seen.append(page["page"])
            page = {"page": page["page"] + 1}
            context.checkpoint(page)
            assert context.cursor() == page

    with interrupt_after(2) as stops:
        run(app, go)

    assert seen == [0, 1, 2, 3, 4]
    assert stops.count == 2


@WAYS
def test_a_coroutine_has_checkpoints_and_loops(app: TaskQ, run: Callable[[TaskQ, Any], list[str]]) -> None:
    seen: list[Any] = []

    @app.task(name="go")
    async def go(context: TaskContext) -> None:
        done = await context.acursor() or []
        for step in ("first", "second"):
            if step not in done:
                seen.append(step)
                done = [*done, step]
                context.checkpoint(done)
        async for number in context.iterate([1, 2, 3]):
            seen.append(number)

    with interrupt_after(1) as stops:
        run(app, go)

    assert seen == ["first", "second", 1, 2, 3]
    assert stops.count == 5


@WAYS
def test_a_blocking_call_in_a_coroutine_is_refused(app: TaskQ, run: Callable[[TaskQ, Any], list[str]]) -> None:
    said: list[str] = []

    @app.task(name="go")
    async def go(context: TaskContext) -> None:
        def loop() -> None:
            for _ in context.iterate([1]):
                pass

        for blocking in (loop, context.cursor, lambda: context.checkpoint(1)):
            try:
                blocking()
            except StepError as error:
                said.append(str(error))

    if run is run_by_a_worker:
        run(app, go)
        assert len(said) == 3
        assert all("this call would block the event loop" in each for each in said)


def test_the_last_value_of_a_checkpoint_is_restored_from_json(app: TaskQ, tasks: Captured) -> None:
    seen: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        context.cursor()
        context.checkpoint(("a", 1))
        seen.append(context.cursor())

    go.delay()
    tasks.run()

    assert seen == [["a", 1]]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cursor", "said"),
    [
        (object(), "the cursors of all loops of a task: .*object"),
        (float("nan"), "the cursors of all loops of a task: NaN"),
        ("x" * 16_384, "the cursors of all loops of a task must be at most 16,384 bytes of JSON, got 16,4"),
    ],
    ids=["object", "nan", "large"],
)
def test_a_cursor_that_cannot_be_stored_is_refused_and_keeps_the_previous_one(
    app: TaskQ, tasks: Captured, cursor: object, said: str
) -> None:
    given = iter([1, cursor, 3])

    @app.task(name="go", max_retry=0)
    def go(context: TaskContext) -> None:
        context.checkpoint("before")
        with pytest.raises(StepError, match=said):
            context.checkpoint(cursor)
        for _ in context.iterate(lambda after: [1, 2], cursor=lambda item: next(given)):
            pass

    handle = go.delay()
    tasks.run(raises=False)

    assert isinstance(tasks.runs[0].error, StepError)
    assert cursors_of(app, handle.id) == {"checkpoint": ["before", 0, False], "/0": [1, 1, False]}


@rows(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size of an iteration must be at least 1, got 0"),
        ({"every": -1}, "every of an iteration must be at least 1, got -1"),
        ({"every": 1.5}, "every of an iteration must be at least 1, got 1.5"),
        ({"total": -1}, "total of an iteration must be a whole number, got -1"),
        ({"name": ""}, "name of an iteration must be text without '/', got ''"),
        ({"name": "a/b"}, "name of an iteration must be text without '/', got 'a/b'"),
        ({"for_at_most": 0}, "for_at_most must be .*0"),
        ({"for_at_most": -5}, "for_at_most must be .*5"),
    ],
)
def test_invalid_options_are_refused_when_the_loop_is_created(options: dict[str, Any], said: str) -> None:
    context = TaskContext(id="a", name="go", queue="default", local=True)

    with pytest.raises(ConfigurationError, match=said):
        context.iterate([1], **options)


@pytest.mark.parametrize(
    "stored", [b"no json", b"[]", b'{"/0": 5}', b'{"/0": [1, 2]}', b'{"/0": ["x", "y", false]}', b"\xff"]
)
def test_unreadable_stored_cursors_fail_the_run(app: TaskQ, tasks: Captured, stored: bytes) -> None:
    """To begin anew would repeat everything."""

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        for number in context.iterate([1, 2]):
            if number == 2:
                raise LookupError

    handle = go.delay()
    tasks.run(raises=False)
    key = f"taskq:{{default}}:steps:{handle.id}"
    words = ("HSET", key, steps.POSITION, b"1 1 " + stored)
    tasks._store.runner.run(operation.Operation("set", None, (key,), words, lambda reply: reply))
    tasks.run(advance=60, raises=False)

    error = tasks.runs[-1].error
    assert isinstance(error, StepError)
    assert "the stored position of the loops does not fit" in str(error)
    assert f"taskq task forget-step --queue default {handle.id} iterate" in str(error)


# --- called directly --------------------------------------------------------------------------------------------------


def test_a_direct_call_processes_all_items(app: TaskQ) -> None:
    @app.task(name="go")
    def go(context: TaskContext) -> list[Any]:
        context.checkpoint("kept nowhere")
        context.progress(1, 2)
        assert not context.is_stopping
        return [*context.iterate([1, 2], every=1), context.cursor()]

    assert go() == [1, 2, "kept nowhere"]


async def test_a_direct_call_of_a_coroutine_processes_all_items(app: TaskQ) -> None:
    @app.task(name="go")
    async def go(context: TaskContext) -> list[Any]:
        return [each async for each in context.iterate([1, 2], every=1)]

    assert await go() == [1, 2]


def test_a_pause_is_an_interruption_that_survives_pickling() -> None:
    import pickle

    pause = pickle.loads(pickle.dumps(TaskPaused(is_stopping=False)))

    assert isinstance(pause, TaskInterrupted)
    assert not isinstance(pause, Exception)
    assert not pause.is_stopping


def test_a_task_iterates_over_files_and_csv(app: TaskQ, tasks: Captured, tmp_path: Any) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,name\n1,a\n2,b\n3,c\n")
    seen: list[Any] = []

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        with ExitStack() as stack:
            for row in context.iterate(csv_rows(stack.enter_context(path.open(newline="")))):
                seen.append(row["name"])
            for line in context.iterate(stack.enter_context(path.open("rb")), batch_size=3):
                seen.append(len(line))

    go.delay()
    with interrupt_after(1):
        tasks.run()

    assert seen == ["a", "b", "c", 3, 1]
