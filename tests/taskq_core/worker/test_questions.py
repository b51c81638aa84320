"""Questions: only an answer ends the wait, each answer belongs to one question, and all open ones are listed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from taskq_core import Answer, ConfigurationError, TaskContext, TaskHandle, TaskQ, TaskState
from taskq_core.errors import SignalTimeoutError, StepError, TaskFailedError, TaskNotFoundError, TaskStateError
from taskq_core.handles.questions import Question
from taskq_core.inspector import Inspector
from taskq_core.testing import capture
from tests.clock import Clock
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = pytest.mark.redis


@pytest.fixture
def inspector(app: TaskQ) -> Inspector:
    """The inspector of the application."""
    return Inspector(app)


@dataclass
class Review:
    """An answer with fields."""

    approved: bool
    note: str = ""


async def asked(handle: TaskHandle[Any]) -> Question:
    """Wait until the task asks, and return the question."""
    await until(lambda: handle.refresh().state is TaskState.SCHEDULED and handle.question() is not None)
    found = await handle.aquestion()
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_only_an_answer_ends_the_wait_and_the_code_reads_who_answered(
    app: TaskQ, start: Runner, kind: str
) -> None:
    got: list[Any] = []

    @app.task(retention=60)
    def plain(context: TaskContext) -> bool:
        got.append(context.receive("review", Answer[Review], ask={"order": 17, "amount": "9.99"}))
        return bool(got[-1].value.approved)

    @app.task(retention=60)
    async def coroutine(context: TaskContext) -> bool:
        got.append(await context.areceive("review", Answer[Review], ask={"order": 17, "amount": "9.99"}))
        return bool(got[-1].value.approved)

    await start()
    task = plain if kind == "plain" else coroutine
    handle = await task.adelay()
    question = await asked(handle)
    assert (question.task, question.name, question.number, question.key) == (task.name, "review", 1, "review#1")
    assert question.asked == {"order": 17, "amount": "9.99"}
    assert question.answer_schema["$defs"]["Review"]["required"] == ["approved"]
    assert (question.until, question.task_id, question.queue) == (None, handle.id, handle.queue)
    wait = handle.refresh().wait
    assert wait is not None
    assert (wait.kind, wait.name, wait.number) == ("question", "review", 1)

    with pytest.raises(TaskStateError, match=r"a signal does not answer; use handle\.answer\(number, value\)"):
        await handle.asignal("review", {"approved": True})
    with pytest.raises(StepError, match=r"the answer to 'review' does not fit: \$\.approved does not fit type"):
        await handle.aanswer(1, {"approved": "secret"})
    with pytest.raises(TaskStateError, match="question 2 of the task is not open"):
        await handle.aanswer(2, {"approved": True})
    assert handle.refresh().state is TaskState.SCHEDULED

    await handle.aanswer(1, {"approved": True, "note": "fine"}, by="ann")
    assert await handle.aresult(timeout=30) is True
    assert (got[-1].value, got[-1].by) == (Review(approved=True, note="fine"), "ann")
    assert abs(datetime.now(UTC) - got[-1].at) < timedelta(minutes=1)
    with pytest.raises(TaskStateError):
        await handle.aanswer(1, {"approved": False})


async def test_an_answer_that_comes_twice_never_reaches_the_next_question(app: TaskQ, start: Runner) -> None:
    @app.task(retention=60)
    async def pay(context: TaskContext) -> list[bool]:
        return [await context.areceive("pay", bool, ask={"order": order}) for order in (1, 2)]

    await start()
    handle = await pay.adelay()
    first = await asked(handle)
    await handle.aanswer(first.number, value=True)
    await until(lambda: (found := handle.question()) is not None and found.number == 2)
    for number in (0, 1, 3):
        with pytest.raises((TaskStateError, ConfigurationError)):
            await handle.aanswer(number, value=True)
    second = await asked(handle)
    assert second.asked == {"order": 2}
    await handle.aanswer(second.number, value={"approved": False})  # as the buttons send it
    assert await handle.aresult(timeout=30) == [True, False]


async def test_a_question_ends_with_its_timeout(app: TaskQ, start: Runner, clock: Clock, inspector: Inspector) -> None:
    @app.task(retention=60)
    async def ask(context: TaskContext) -> str:
        with pytest.raises(SignalTimeoutError):
            await context.areceive("a", bool, timeout=60, ask={})
        return str(await context.areceive("b", Literal["x", "y"], timeout=60, default="late", ask={"pick": "one"}))

    await start()
    handle = await ask.adelay()
    first = await asked(handle)
    assert first.until is not None
    assert abs(first.until - first.since - timedelta(seconds=60)) < timedelta(seconds=2)
    await clock.advance(61)
    await until(lambda: (found := handle.question()) is not None and found.number == 2)
    assert (await asked(handle)).answer_schema == {"enum": ["x", "y"]}
    assert [each.name for each in inspector.questions()] == ["b"]
    with pytest.raises(TaskStateError):
        await handle.aanswer(1, value=True)
    await clock.advance(61)
    assert await handle.aresult(timeout=30) == "late"
    assert inspector.questions() == []


async def test_the_inbox_lists_open_questions_of_all_queues_the_oldest_first(
    app: TaskQ, start: Runner, inspector: Inspector
) -> None:
    @app.task
    async def ask(context: TaskContext, what: str) -> None:
        await context.areceive("review", bool, ask={"what": what})

    await start(queues={"default": 1, "mail": 1})
    handles = []
    for what, queue in (("a", "default"), ("b", "mail"), ("c", "default"), ("d", "default")):
        handle = await ask.using(queue=queue).adelay(what)
        await asked(handle)
        handles.append(handle)
    assert [each.asked["what"] for each in inspector.questions()] == ["a", "b", "c", "d"]
    assert [each.asked["what"] for each in inspector.questions("default", limit=2)] == ["a", "c"]
    assert [each.asked["what"] for each in inspector.questions("mail", handles[1].id)] == ["b"]
    with pytest.raises(ConfigurationError, match="queue="):
        inspector.questions(task_id=handles[1].id)

    inspector.delete_task("default", handles[0].id)
    inspector.archive_task("default", handles[2].id)
    inspector.answer_task("mail", handles[1].id, 1, value=True)
    assert [each.asked["what"] for each in inspector.questions()] == ["d"]
    inspector.run_task("default", handles[2].id)
    await asked(handles[2])
    assert [each.asked["what"] for each in inspector.questions()] == ["c", "d"]
    with pytest.raises(TaskNotFoundError):
        inspector.answer_task("default", handles[0].id, 1, value=True)


async def test_an_answer_for_an_earlier_task_with_the_same_id_is_refused(
    app: TaskQ, start: Runner, inspector: Inspector
) -> None:
    @app.task
    async def ask(context: TaskContext) -> None:
        await context.areceive("review", bool, ask={})

    await start()
    handle = await ask.using(task_id="order-7").adelay()
    old = await asked(handle)
    inspector.delete_task("default", "order-7")
    await asked(await ask.using(task_id="order-7").adelay())
    with pytest.raises(TaskNotFoundError):
        inspector.answer_task("default", "order-7", 1, value=True, generation=old.generation)
    with pytest.raises(TaskNotFoundError):
        await handle.aanswer(1, value=True)
    assert len(inspector.questions()) == 1


async def test_a_forgotten_question_is_asked_again_with_another_number(
    app: TaskQ, start: Runner, inspector: Inspector
) -> None:
    amounts = iter(["9", "99"])

    @app.task(retention=60)
    async def ask(context: TaskContext) -> bool:
        return await context.areceive("pay", bool, ask={"amount": next(amounts, "none")})

    await start()
    handle = await ask.adelay()
    assert (await asked(handle)).asked == {"amount": "9"}
    assert inspector.forget_step("default", handle.id, "pay#1") is True
    await until(lambda: (found := handle.question()) is not None and found.number == 2)
    with pytest.raises(TaskStateError):
        await handle.aanswer(1, value=True)
    again = await asked(handle)
    assert again.asked == {"amount": "99"}
    assert [each.number for each in inspector.questions()] == [2]
    await handle.aanswer(2, value=True)
    assert await handle.aresult(timeout=30) is True


async def test_a_task_that_waited_for_a_signal_before_it_asked_still_takes_the_signal(
    app: TaskQ, start: Runner
) -> None:
    """As after a deploy that adds `ask` to the code of waiting tasks."""
    question: dict[str, Any] = {}

    @app.task(retention=60)
    async def review(context: TaskContext) -> list[bool]:
        return [await context.areceive("review", bool, **question) for _ in range(2)]

    await start()
    handle = await review.adelay()
    await until(lambda: handle.refresh().state is TaskState.SCHEDULED)
    question["ask"] = {"photo": 7}
    await handle.asignal("review", value=False)
    second = await asked(handle)
    assert second.key == "review#1"
    await handle.aanswer(second.number, value=True)
    assert await handle.aresult(timeout=30) == [False, True]


async def test_signals_with_the_name_of_a_question_stay_for_receive_without_ask(app: TaskQ, start: Runner) -> None:
    @app.task(retention=60)
    async def both(context: TaskContext) -> list[int]:
        asked_for = await context.areceive("go", int, ask={})
        return [asked_for, await context.areceive("go", int)]

    handle = await both.adelay()
    await handle.asignal("go", 2)  # sent before the task asks
    await start()
    await handle.aanswer((await asked(handle)).number, 1)
    assert await handle.aresult(timeout=30) == [1, 2]


@pytest.mark.parametrize(
    ("ask", "type_", "problem"),
    [
        (["order"], bool, "ask must be a dict with text as keys, got list"),
        ({1: "order"}, bool, "ask must be a dict with text as keys, got dict"),
        ({"order": object()}, bool, "a question: object has no JSON form"),
        ({"text": "x" * 70_000}, bool, "a question must be at most 65,536 bytes of JSON"),
        (None, Answer[bool], "the type Answer needs `ask`"),
    ],
)
async def test_a_question_that_cannot_be_asked_fails_at_once(
    app: TaskQ, start: Runner, ask: Any, type_: Any, problem: str
) -> None:
    @app.task(retention=60)
    async def wrong(context: TaskContext) -> None:
        await context.areceive("review", type_, ask=ask)

    await start()
    handle = await wrong.adelay()
    with pytest.raises(TaskFailedError) as raised:
        await handle.aresult(timeout=30)
    assert problem in str(raised.value)


def test_capture_asks_and_answers_without_a_worker(app: TaskQ) -> None:
    @app.task(retention=60)
    def pay(context: TaskContext) -> bool:
        return context.receive("pay", bool, ask={"amount": "9.99"})

    with capture(app) as tasks:
        handle = pay.delay()
        tasks.run()
        question = handle.question()
        assert question is not None
        handle.answer(question.number, value=True)
        tasks.run()
        assert handle.result(timeout=0) is True
