"""Outcomes and a request for tasks go as one script where that can settle them, and else as two, to the same end."""

from collections import Counter
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Dequeued, dequeue
from taskq_core.errors import BrokerReplyError
from taskq_core.wire import Keys, QueueKeys, TaskMessage
from taskq_core.worker.fused_exchange import APART_MAX, RUNS_MIN, FusedExchange
from taskq_core.worker.run import Run
from taskq_core.worker.settler import SettleBatch
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

QUEUE = Keys().queue("default")
ASKED = dequeue(QUEUE, owner="w", call=1, limit=9, lease_s=30)
EMPTY = Dequeued(1, 31, 0, [])


def batch(count: int = RUNS_MIN, *, queue: QueueKeys = QUEUE, is_plain: bool = True) -> SettleBatch:
    runs = [
        Run(queue, f"t{number}", TaskMessage(type="t", id=f"t{number}", queue="default"), 0.0)
        for number in range(count)
    ]
    sent: Operation[str] = Operation("settle", None, (), (), str)
    return SettleBatch(queue, runs, sent, count, is_plain)


def test_a_batch_of_plain_settlements_is_fused_with_a_dequeue_of_its_queue() -> None:
    joined = FusedExchange().join([batch()], QUEUE, ASKED)

    assert joined is not None
    assert [*joined.args[-RUNS_MIN:]] == [f"t{number}" for number in range(RUNS_MIN)]


def test_other_batches_are_not_fused(subtests: pytest.Subtests) -> None:
    for batches in [
        [],
        [batch(), batch(queue=Keys().queue("other"))],
        [batch(queue=Keys().queue("other"))],
        [batch(is_plain=False)],
        [batch(RUNS_MIN - 1)],
    ]:
        with subtests.test(batches=batches):
            assert FusedExchange().join(batches, QUEUE, ASKED) is None


@pytest.mark.parametrize("answer", [None, BrokerReplyError("WRONGTYPE")])
def test_fusing_is_tried_less_often_after_refusals(answer: BrokerReplyError | None) -> None:
    exchange = FusedExchange()
    waits = []
    for _ in range(10):
        turns = 0
        while exchange.join([batch()], QUEUE, ASKED) is None:
            turns += 1
        waits.append(turns)
        assert exchange.part(batch(), answer) is None

    assert waits == [0, 2, 4, 8, 16, 32, 64, 128, APART_MAX, APART_MAX]


def test_settlements_of_unknown_outcome_are_sent_again_as_such() -> None:
    """Otherwise a refusal by Redis would make these tasks look as if another worker owned them."""
    refused, failed = batch(), batch()

    assert FusedExchange().part(refused, None) is None
    assert FusedExchange().part(failed, BrokerReplyError("WRONGTYPE")) is None

    assert not any(run.repeated for run in refused.runs)
    assert all(run.repeated for run in failed.runs)


def test_a_success_enables_fusing_again() -> None:
    exchange = FusedExchange()
    exchange.part(batch(), None)
    while exchange.join([batch()], QUEUE, ASKED) is None:
        pass

    assert exchange.part(batch(), EMPTY) == ["1" * RUNS_MIN, EMPTY]
    assert exchange.join([batch()], QUEUE, ASKED) is not None


async def test_settling_and_dequeuing_take_one_script_call(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    exchanges: list[list[tuple[str, Any]]],
) -> None:
    runs: Counter[int] = Counter()

    @app.task(name="quick", retention=0)
    async def quick(number: int) -> None:
        runs[number] += 1

    await app.async_client.enqueue_many(quick.s(number) for number in range(400))
    worker = await start(concurrency=12)
    await until(lambda: len(runs) == 400 and worker.running_count == 0)
    await start.stop(worker)

    turns = Counter(tuple(name for name, _ in each) for each in exchanges)
    assert turns["settle_and_dequeue",] >= 39
    assert turns["settle", "dequeue"] == 0
    assert set(runs.values()) == {1}
    assert redis_server.client.get(queue.processed) == b"400"
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


async def test_the_ends_of_tasks_with_waiting_callers_are_published(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The fused script refuses these tasks, and the plain script settles each once."""
    runs: Counter[int] = Counter()

    @app.task(name="quick", retention=0)
    async def quick(number: int) -> None:
        runs[number] += 1

    handles = await app.async_client.enqueue_many([quick.s(number) for number in range(40)])
    for handle in handles:
        redis_server.client.hset(queue.task(handle.id), "taskq_wait", "1")
    client: Any = redis_server.client
    channel = client.pubsub()
    channel.subscribe(queue.done)
    assert channel.get_message(timeout=60)["type"] == "subscribe"
    worker = await start(concurrency=10)
    await until(lambda: len(runs) == 40 and worker.running_count == 0)
    await start.stop(worker)
    redis_server.client.publish(queue.done, "the last")
    published: list[str] = []
    while "the last" not in published:
        data = channel.get_message(timeout=60)["data"]
        published += [data.decode()] if data else []  # a worker tries its rights with empty ones
    channel.close()

    assert sorted(published[:-1]) == sorted(handle.id for handle in handles)
    assert redis_server.client.get(queue.processed) == b"40"
