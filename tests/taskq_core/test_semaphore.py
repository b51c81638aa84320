"""Places held by tasks and by other code, from both kinds of code."""

import asyncio
import contextlib
import logging
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ, current_task
from taskq_core.errors import BrokerUnavailableError, SemaphoreFullError
from taskq_core.semaphore import Semaphore
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer
from tests.rows import rows

pytestmark = pytest.mark.redis
KEY = "asynq:sema:api"


@pytest.fixture
async def app(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30, defaults={"retention": 600})
    yield app
    await app.aclose()


def holders(server: RedisServer) -> dict[str, int]:
    found: Any = server.client.zrange(KEY, 0, -1, withscores=True)
    return {member.decode(): int(score) for member, score in found}


def test_blocking_code_acquires_and_releases_permits(app: TaskQ, redis_server: RedisServer) -> None:
    permits = Semaphore(app, "api", 1)

    assert permits.acquire(holder="a", deadline=60)
    assert not permits.acquire(holder="b", deadline=60)
    assert permits.release(holder="a")
    assert not permits.release(holder="a")
    assert permits.acquire(holder="b", deadline=60)


async def test_coroutines_acquire_and_release_permits(app: TaskQ) -> None:
    permits = Semaphore(app, "api", 1)

    assert await permits.aacquire(holder="a", deadline=60)
    assert not await permits.aacquire(holder="b", deadline=60)
    assert await permits.arelease(holder="a")
    assert not await permits.arelease(holder="a")


def test_a_block_holds_a_permit(app: TaskQ, redis_server: RedisServer) -> None:
    permits = Semaphore(app, "api", 1)

    with contextlib.suppress(ZeroDivisionError), permits.hold(holder="a", deadline=60) as hold:
        assert hold.holder == "a"
        assert list(holders(redis_server)) == ["a"]
        with pytest.raises(SemaphoreFullError), permits.hold(holder="b", deadline=60):
            pass
        raise ZeroDivisionError

    assert holders(redis_server) == {}


async def test_an_async_block_holds_a_permit(app: TaskQ, redis_server: RedisServer) -> None:
    permits = Semaphore(app, "api", 1)

    async with permits.hold(holder="a", deadline=60):
        assert list(holders(redis_server)) == ["a"]
        with pytest.raises(SemaphoreFullError):
            async with permits.hold(holder="b", deadline=60):
                pass

    assert holders(redis_server) == {}


def test_acquire_waits_for_a_permit(app: TaskQ, redis_server: RedisServer) -> None:
    permits = Semaphore(app, "api", 1)
    permits.acquire(holder="a", deadline=60)
    waiting = threading.Event()
    held: list[dict[str, int]] = []

    def wait() -> None:
        waiting.set()
        with permits.hold(holder="b", deadline=60, wait=60):
            held.append(holders(redis_server))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    permits.release(holder="a")
    thread.join(30)

    assert [list(each) for each in held] == [["b"]]


async def test_waiting_coroutines_take_turns(app: TaskQ, redis_server: RedisServer) -> None:
    permits = Semaphore(app, "api", 2)
    most = inside = 0
    together = asyncio.Event()

    async def use(number: int) -> None:
        nonlocal most, inside
        async with permits.hold(holder=f"h{number}", deadline=60, wait=60):
            inside += 1
            most = max(most, inside)
            if inside == 2:
                together.set()
            await together.wait()  # the first, for another: there is room for both
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(use(number) for number in range(6)))

    assert most == 2
    assert holders(redis_server) == {}


async def test_a_wait_ends_at_its_timeout(app: TaskQ) -> None:
    permits = Semaphore(app, "api", 1)
    await permits.aacquire(holder="a", deadline=60)

    with pytest.raises(SemaphoreFullError, match=r"^all 1 permits of semaphore 'api' are held$") as caught:
        async with permits.hold(holder="b", deadline=60, wait=0.12):
            pass

    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.scope, copy.limit, str(copy)) == ("api", 1, str(caught.value))


async def test_a_cancelled_wait_holds_no_permit(app: TaskQ, redis_server: RedisServer) -> None:
    permits = Semaphore(app, "api", 1)
    await permits.aacquire(holder="a", deadline=60)

    async def wait() -> None:
        async with permits.hold(holder="b", deadline=60, wait=60):
            pass

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await permits.arelease(holder="a")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert holders(redis_server) == {}


@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_a_task_holds_by_its_id_until_its_deadline(
    app: TaskQ, redis_server: RedisServer, is_coroutine: bool
) -> None:
    permits = Semaphore(app, "api", 1)

    def seen() -> dict[str, Any]:
        deadline = current_task().deadline
        assert deadline is not None
        return {"holders": holders(redis_server), "ends": deadline.timestamp()}

    @app.task(name="plain", timeout=90)
    def plain() -> dict[str, Any]:
        with permits.hold():
            return seen()

    @app.task(name="coroutine", timeout=90)
    async def coroutine() -> dict[str, Any]:
        async with permits.hold():
            return seen()

    handle = await (coroutine if is_coroutine else plain).adelay()
    await Worker(app, WorkerConfig(burst=True)).arun()
    result = await handle.aresult(timeout=60)

    assert result["holders"].keys() == {handle.id}
    assert 0 <= result["holders"][handle.id] - result["ends"] < 2
    assert holders(redis_server) == {}


def test_a_permit_expires_at_its_deadline(app: TaskQ, redis_server: RedisServer) -> None:
    permits = Semaphore(app, "api", 9)
    now = datetime.now(tz=UTC)

    permits.acquire(holder="moment", deadline=now + timedelta(seconds=60))
    permits.acquire(holder="span", deadline=timedelta(seconds=60))
    permits.acquire(holder="seconds", deadline=60)

    assert all(60 <= score - int(now.timestamp()) <= 90 for score in holders(redis_server).values())


def test_a_failed_release_does_not_fail_the_block(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    permits = Semaphore(app, "api", 1)

    with caplog.at_level(logging.WARNING, "taskq"), permits.hold(holder="a", deadline=60):
        app.runtime.runner.close()

    assert "expires at its deadline" in caplog.text
    app.close()


def test_permits_use_the_prefix_of_the_application(redis_server: RedisServer) -> None:
    app = TaskQ(redis_server.unix_url, prefix="shop", enqueue_timeout=30)

    Semaphore(app, "api", 1).acquire(holder="a", deadline=60)

    assert redis_server.client.exists("shop:sema:api")
    app.close()


@rows(
    ("make", "message"),
    [
        (lambda app: Semaphore(app, " ", 1), "scope of a semaphore must not be blank, got ' '"),
        (lambda app: Semaphore(app, "s", 0), "limit must be between 1 and 1000000, got 0"),
        (lambda app: Semaphore(app, "s", True), "limit must be a whole number, got True"),
        (
            lambda app: Semaphore(app, "s", 1).acquire(),
            "no task runs here; pass holder=, the id of the holder of the permit",
        ),
        (
            lambda app: Semaphore(app, "s", 1).acquire(holder="a"),
            "no task with a deadline runs here; pass deadline=, the time at which the permit expires",
        ),
        (lambda app: Semaphore(app, "s", 1).acquire(holder="", deadline=1), "task id must not be blank, got ''"),
        (
            lambda app: Semaphore(app, "s", 1).acquire(holder="a", deadline=0),
            "deadline must be more than 0 seconds, got 0",
        ),
        (
            lambda app: Semaphore(app, "s", 1).acquire(holder="a", deadline=datetime(2030, 1, 1)),  # noqa: DTZ001
            "deadline must have a time zone, got datetime.datetime(2030, 1, 1, 0, 0)",
        ),
        (lambda app: Semaphore(app, "s", 1).hold(holder="a", wait=-1), "wait must be 0 or more seconds, got -1"),
    ],
)
def test_invalid_arguments_are_refused(
    app: TaskQ, redis_server: RedisServer, make: Callable[[TaskQ], object], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(app)

    assert str(caught.value) == message
    assert redis_server.client.dbsize() == 0


def test_an_unreachable_redis_is_reported(tmp_path: Any) -> None:
    permits = Semaphore(TaskQ(f"unix://{tmp_path}/none.sock", enqueue_timeout=0.01), "api", 1)

    with pytest.raises(BrokerUnavailableError), permits.hold(holder="a", deadline=60):
        pass
