"""Test limits over several worker processes: counts, killed or frozen holders, and limits changed during the run."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import Concurrency, RateLimit, TaskQ, TaskSequence
from taskq_core.wire import QueueKeys, build_message, encode_message
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import WorkerProcess, marks, push_raw, until_blocking

Start = Callable[..., WorkerProcess]

pytestmark = pytest.mark.slow


def started_ms(server: RedisServer, name: str, count: int) -> list[int]:
    """Wait for `count` starts of tasks, and return their times by Redis's clock in milliseconds."""
    until_blocking(lambda: len(marks(server, f"{name}:at")) >= count, f"{count} starts of {name}")
    return sorted(map(int, marks(server, f"{name}:at")))


def most_in_a_span(starts: list[int], ms: int) -> int:
    """Return the largest number of starts in any period of this length in milliseconds, without its end."""
    return max(sum(first <= each < first + ms for each in starts) for first in starts)


def most_at_once(notes: list[str]) -> int:
    """Return the largest number of tasks that ran at once."""
    running = most = 0
    for each in notes:
        running += 1 if each[0] == "+" else -1
        most = max(most, running)
    return most


def test_a_token_bucket_is_counted_over_four_processes(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    """Every sliding window has at most burst + rate * window starts."""
    timed = app.remote("timed", rate_limit=RateLimit("50/s", burst=5))
    for _ in range(4):
        start_process(concurrency=4)
    app.client.enqueue_many([timed.s(name="rate") for _ in range(150)])

    starts = started_ms(redis_server, "rate", 150)
    for ms in (1, 20, 50, 100, 333, 1000, 2000):
        assert most_in_a_span(starts, ms) <= 5 + 50 * ms / 1000, ms


def test_a_fixed_window_is_counted_over_four_processes(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    """Every fixed period has at most the allowed number of starts, and every sliding window at most twice as many."""
    timed = app.remote("timed", rate_limit=RateLimit("20/300ms", window="fixed"))
    for _ in range(4):
        start_process(concurrency=4)
    app.client.enqueue_many([timed.s(name="rate") for _ in range(120)])

    starts = started_ms(redis_server, "rate", 120)
    assert max(Counter(each // 300 for each in starts).values()) <= 20
    assert most_in_a_span(starts, 300) <= 40


def test_total_and_per_key_limits_are_counted_over_four_processes(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    timed = app.remote("timed", concurrency=(3, Concurrency(1, key="name")))
    for _ in range(4):
        start_process(concurrency=4)
    calls = [timed.s(name=f"key{number % 5}", seconds=0.01) for number in range(80)]
    app.client.enqueue_many(calls)

    names = [f"key{number}" for number in range(5)]
    until_blocking(lambda: sum(len(marks(redis_server, each)) for each in names) == 160)
    assert [most_at_once(marks(redis_server, each)) for each in names] == [1] * 5


def test_a_total_limit_is_counted_over_four_processes(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    timed = app.remote("timed", concurrency=3)
    for _ in range(4):
        start_process(concurrency=4)
    app.client.enqueue_many([timed.s(name="all", seconds=0.02) for _ in range(60)])

    until_blocking(lambda: len(marks(redis_server, "all")) == 120)
    assert most_at_once(marks(redis_server, "all")) == 3


def test_a_sequence_keeps_its_order_over_four_processes_though_some_fail(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    timed = app.remote("timed", sequence="name")
    for _ in range(4):
        start_process(concurrency=4)
    ids: dict[str, list[str]] = {"a": [], "b": []}
    for number in range(12):
        for name, of_name in ids.items():
            of_name.append(timed.delay(name=name, fails=1 if number == 4 else 0).id)

    for name, of_name in ids.items():
        until_blocking(lambda name=name: len(marks(redis_server, name)) == 26)
        recorded = marks(redis_server, name)
        twice = [*of_name[:5], of_name[4], *of_name[5:]]
        assert recorded == [sign + each for each in twice for sign in "+-"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_frozen_holder_loses_its_place_with_its_lease(
    app: TaskQ, start_process: Start, redis_server: RedisServer, how: signal.Signals
) -> None:
    victim = start_process(concurrency=1)
    waiting = app.remote("wait", concurrency=1)
    waiting.delay(name="holder", until="never")
    until_blocking(lambda: marks(redis_server, "holder") == ["started 1"])
    after = waiting.using(max_retry=0).delay(name="next", until="go")
    redis_server.client.set("go", "1")
    victim.signal(how)
    start_process(concurrency=2)

    until_blocking(lambda: marks(redis_server, "next") == ["started 1", "ended"])
    assert after.id
    if how == signal.SIGSTOP:
        victim.signal(signal.SIGCONT)


def test_limits_of_tasks_from_go_are_checked_when_a_worker_takes_them(
    start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    for _ in range(4):
        start_process(concurrency=4)
    for number in range(30):
        payload = json.dumps({"name": "pushed", "seconds": 0.01}).encode()
        message = build_message(
            payload=payload, type="one_at_a_time", id=f"go{number}", queue="default", retry=0, timeout=60
        )
        push_raw(redis_server, queue, f"go{number}", encode_message(message))

    until_blocking(lambda: len(marks(redis_server, "pushed")) == 60)
    assert most_at_once(marks(redis_server, "pushed")) == 1


def test_a_task_from_go_fails_if_its_limit_key_fails(
    start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    start_process(concurrency=1)
    message = build_message(payload=b'{"nam": 1}', type="one_at_a_time", id="go", queue="default", retry=0, timeout=60)
    push_raw(redis_server, queue, "go", encode_message(message))

    until_blocking(lambda: redis_server.client.zscore(queue.archived, "go") is not None)


def test_a_sequence_that_skips(app: TaskQ, start_process: Start, redis_server: RedisServer) -> None:
    start_process(concurrency=4)
    timed = app.remote("timed", sequence=TaskSequence("name", on_failure="skip"), max_retry=0)
    timed.delay(name="skip", fails=1)
    timed.delay(name="skip")

    until_blocking(lambda: len(marks(redis_server, "skip")) == 4)


def test_another_worker_continues_the_admission_of_a_stopped_worker(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    first = start_process(concurrency=2)
    timed = app.remote("timed", rate_limit="10/s")
    app.client.enqueue_many([timed.s(name="led") for _ in range(15)])
    started_ms(redis_server, "led", 3)
    start_process(concurrency=2)
    first.signal(signal.SIGTERM)
    assert first.wait() == 0

    started_ms(redis_server, "led", 15)


def test_without_waiting_tasks_no_keys_of_limits_are_left(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    queue: Any = app.runtime.keys.queue("default")
    start_process(concurrency=4)
    timed = app.remote("timed", concurrency=Concurrency(1, key="name"), rate_limit=RateLimit("1000/s", key="name"))
    app.client.enqueue_many([timed.s(name=f"key{number}") for number in range(50)])

    until_blocking(lambda: redis_server.client.zcard(queue.completed) == 50)
    until_blocking(lambda: not redis_server.client.keys(f"{queue.limits_prefix}*:*"), "the memory of idle keys expires")
