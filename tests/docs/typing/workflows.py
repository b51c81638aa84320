"""Read by type checkers, never run. A line that ends in `# error` must be refused by each of them, no other may be."""

from dataclasses import dataclass
from typing import Any, assert_type

from taskq_core import Chain, Chord, Group, TaskQ, Workflow, WorkflowHandle, chain, chord, group

taskq = TaskQ()


@dataclass
class Receipt:
    id: int


@taskq.task
def fetch(url: str) -> bytes:
    return b""


@taskq.task
def size(data: bytes) -> int:
    return 0


@taskq.task
async def pay(amount: int, note: str = "") -> Receipt:
    return Receipt(amount)


@taskq.task
def total(sizes: list[int]) -> float:
    return 0.0


async def use() -> None:
    # The result of a chain is the result of its last part.
    assert_type(fetch.s("x") | size.s(), Chain[int])
    assert_type(fetch.s("x") | size.s() | pay.s(), Chain[Receipt])
    assert_type((fetch.s("x") | size.s()).delay(), WorkflowHandle[int])
    assert_type((fetch.s("x") | size.s()).delay().result(timeout=5), int)
    assert_type(chain(fetch.s("x")), Chain[bytes])
    assert_type(chain(fetch.s("x"), size.s()), Chain[int])
    assert_type(chain(fetch.s("x"), size.s(), pay.s()), Chain[Receipt])
    assert_type(chain(fetch.s("x"), size.s(), pay.s(), on_failure="continue"), Chain[Receipt])
    assert_type(await (await chain(fetch.s("x"), size.s()).adelay()).aresult(), int)
    print((fetch.s("x") | size.s()).delay().result().id)  # error

    # The result of a group is a list of JSON values.
    assert_type(group(size.s(b"a"), pay.s(1)), Group)
    assert_type(group([pay.s(1), pay.s(2)]).delay(), WorkflowHandle[list[Any]])
    assert_type(size.map([b"a", b"b"]).delay().result(), list[Any])
    assert_type(group(size.s(b"a")) | total.s(), Chain[float])
    print(group(size.s(b"a")).delay().result().id)  # error

    # The result of a chord is the result of its callback.
    assert_type(chord([size.s(b"a"), size.s(b"b")], total.s()), Chord[float])
    assert_type(chord(size.map([b"a", b"b"]), total.s()), Chord[float])
    assert_type(chord(group(size.s(b"a")), total.s()).delay().result(), float)

    # Methods that return copies keep the type.
    assert_type(group(size.s(b"a")).named("sizes").kept(60), Group)
    assert_type(chain(fetch.s("x"), size.s()).named("sizes").on_error(pay.s(1)), Chain[int])
    assert_type(size.s(b"a").on_error(pay.s(1)), Chain[int])
    assert_type(taskq.enqueue_workflow(group(size.s(b"a"))), WorkflowHandle[list[Any]])
    assert_type(await taskq.aenqueue_workflow(chain(fetch.s("x"), size.s())), WorkflowHandle[int])

    # The type of a workflow with named steps is stated.
    order = Workflow[Receipt]("order").step("size", size.s(b"")).step("pay", pay.s(), after="size")
    assert_type(order, Workflow[Receipt])
    assert_type(order.delay().result(), Receipt)
    plain = Workflow("order").step("size", size.s(b""))
    assert_type(plain.delay().result(), Any)
    print(order.delay().result().amount)  # error

    # Without a parameter, annotations accept every result.
    anything: WorkflowHandle = (fetch.s("x") | size.s()).delay()
    wide: WorkflowHandle[object] = group(size.s(b"a")).delay()
    narrow: WorkflowHandle[str] = (fetch.s("x") | size.s()).delay()  # error
    print(anything, wide, narrow)


def prepare(parts: Chain[int]) -> Group:
    return group(parts, parts)
