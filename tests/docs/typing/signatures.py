"""Read by type checkers, never run. A line that ends in `# error` must be refused by each of them, no other may be."""

from typing import assert_type

from sqlalchemy.orm import Session

from taskq_core import (
    AsyncClient,
    Client,
    PartialSignature,
    PeriodicTask,
    Signature,
    TaskHandle,
    TaskQ,
    Workflow,
    WorkflowHandle,
    chain,
    chord,
    group,
)
from taskq_core.workflow import Chain, Group, StepFailure, step
from taskq_sqlalchemy import enqueue_after_commit

taskq = TaskQ()


@taskq.task
def fetch(address: str, tries: int = 1, *, agent: str = "") -> str:
    return ""


@taskq.task
async def parse(page: str, depth: int) -> list[str]:
    return []


@taskq.task
def report(words: int, links: int, title: str) -> int:
    return 0


@taskq.task
def note(*, what: str) -> None: ...


@taskq.task
def alarm(failure: StepFailure) -> None: ...


@taskq.task
def clean_up() -> None: ...


async def clients(client: Client, later: AsyncClient, session: Session) -> None:
    assert_type(fetch.s("a", agent="b"), Signature[str])
    assert_type(parse.s("a", depth=2), Signature[list[str]])
    assert_type(parse.s(depth=2), PartialSignature[list[str]])
    assert_type(client.enqueue(fetch.s("a")), TaskHandle[str])
    assert_type(await later.enqueue(parse.s("a", 2)), TaskHandle[list[str]])
    assert_type(enqueue_after_commit(session).enqueue(parse.s("a", 2)), TaskHandle[list[str]])
    client.enqueue(fetch.s(1))  # error
    client.enqueue(fetch.s())  # error
    client.enqueue(fetch.s("a", agnet="b"))  # error
    client.enqueue_many([fetch.s(1)])  # error
    client.enqueue_many(fetch.s(n) for n in range(3))  # error
    client.enqueue_many([parse.s("a")])  # error
    await later.enqueue(parse.s("a", "2"))  # error
    await later.enqueue(parse.s("a"))  # error
    await later.enqueue_many(fetch.s("a", "b") for _ in range(3))  # error
    enqueue_after_commit(session).enqueue(fetch.s(1))  # error
    enqueue_after_commit(session).enqueue(parse.s(2))  # error
    enqueue_after_commit(session).enqueue_many([fetch.s(1)])  # error
    enqueue_after_commit(session).enqueue_workflow(chain(parse.s(2)))  # error
    taskq.enqueue_workflow(fetch.s("a") | parse.s(2))
    taskq.enqueue_workflow(parse.s(2) | clean_up.si())  # error
    await taskq.aenqueue_workflow(group(parse.s(2)))  # error
    parse.s(depth=2).delay()  # error
    await parse.s(depth="2").adelay()  # error
    taskq.extend_group([fetch.s(1)])  # error
    await taskq.aextend_group([parse.s(depth=1)])  # error
    PeriodicTask("@daily", parse.s(depth=1))  # error
    taskq.schedule("@daily", parse.s(depth=1))  # error
    taskq.schedule("@daily", fetch.s("a", "b"))  # error


def workflows() -> None:
    assert_type(fetch.s("a") | parse.s(depth=2), Chain[list[str]])
    assert_type(chain(fetch.s("a"), parse.s(2), clean_up.si()), Chain[None])
    assert_type(chain(fetch.s("a") for _ in range(3)), Chain)
    assert_type(group(fetch.s("a"), fetch.s("b")), Group)
    assert_type(chord(group(fetch.s(each) for each in "abc"), report.s()).delay(), WorkflowHandle[int])
    fetch.s("a").on_success(parse.s(2)).on_error(alarm.s()).on_complete(clean_up.si())
    chain(fetch.s("a"), step(note.s(), into="what"), step(report.s().with_arguments(words=1, title="t"), into="links"))
    chain(fetch.s(1), parse.s(2)).delay()  # error
    chain(fetch.s(b""), parse.s(2))  # error
    (fetch.s(1) | parse.s(2)).delay()  # error
    (chain(fetch.s(1)) | parse.s(2)).delay()  # error
    fetch.s(1).on_success(parse.s(2)).delay()  # error
    fetch.s("a").on_success(parse.s(2)).delay()
    chain(fetch.s("a"), chain(parse.s(2), alarm.s()).on_error(alarm.s()), step(fetch.s(2))).delay()
    chain(fetch.s("a"), group(fetch.s(2), parse.s(1)), group(parse.s(each) for each in range(3))).delay()
    chain(fetch.s("a"), parse.s("2"))  # error
    chain(fetch.s("a"), parse.s(dept=2))  # error
    chain(fetch.s("a"), parse)  # error
    fetch.s("a") | parse.s(deep=2)  # error
    fetch.s("a") | parse  # error
    group(fetch.s(n) for n in range(3)).delay()  # error
    group(fetch.s("a"), fetch.s(1)).delay()  # error
    chord([fetch.s(1)], report.s()).delay()  # error
    step(fetch.s(1)).delay()  # error
    group([fetch])  # error
    chord([fetch.s("a")], note.s(what=1))  # error
    fetch.s("a").on_error(alarm.s("a"))  # error
    step(parse.s("2"), name="x")  # error
    step(parse.s(2), nam="x")  # error


def by_name() -> None:
    (
        Workflow("site")
        .step("page", fetch.s("a"))
        .step("words", parse.s(2), after="page")
        .step("report", report.s("t"), after=["page", "words"])
        .step("all", report.s(title="t"), after={"page": "words", "words": "links"}, on_error=alarm.s())
        .step("end", clean_up.si(), after="all", on_success=[clean_up.si()])
    )
    Workflow().step("page", fetch.s(1))  # error
    Workflow().step("words", parse.s("2"), after="page")  # error
    Workflow().step("report", report.s(1), after=["page", "words"])  # error
    Workflow().step("page", fetch)  # error
    Workflow().step("page", fetch.s("a"), on_error=alarm.s(1))  # error


def many() -> None:
    assert_type(fetch.map(["a", "b"]), Group)
    assert_type(fetch.map(each for each in "abc"), Group)
    assert_type(fetch.starmap([("a", 1), ("b", 2)]), Group)
    assert_type(parse.starmap((each, 1) for each in "abc"), Group)
    assert_type(report.starmap([(1, 2, "t")]), Group)
    fetch.map([1])  # error
    fetch.map("a", "b")  # error
    parse.map(["a"])  # error
    parse.starmap([("a", "b")])  # error
    parse.starmap([("a",)])  # error
    report.starmap((n, n, n) for n in range(3))  # error
