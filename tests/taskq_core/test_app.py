"""`TaskQ`: settings by name, life of its connections, middleware, and no password anywhere."""

import asyncio
import gc
import logging
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from taskq_core import (
    BrokerAuthenticationError,
    ConfigurationError,
    EnqueueError,
    QueueUnservedWarning,
    Settings,
    TaskContext,
    TaskQ,
)
from taskq_core.tasks.middleware import Middleware
from taskq_core.worker import Worker
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.worker.conftest import until_blocking


@pytest.fixture
def wait_for_closes(redis_server: RedisServer) -> Callable[[], None]:
    """Wait until the server has noticed that all connections opened in this test are closed."""

    def ids() -> set[str]:
        return {each["id"] for each in redis_server.client.client_list()}

    before = ids()
    return lambda: until_blocking(lambda: ids() <= before, "connections were closed")


CANARY = "c4nary/p@ss"
ENCODED = "c4nary%2Fp%40ss"


class TestSettings:
    def test_keyword_settings_override_a_settings_object(self) -> None:
        base = Settings(concurrency=3, prefix="a")

        taskq = TaskQ("redis://h:1/0", settings=base, prefix="b")

        assert (taskq.settings.url, taskq.settings.concurrency, taskq.settings.prefix) == ("redis://h:1/0", 3, "b")

    @rows(
        ("values", "message"),
        [
            ({"concurency": 1}, "unknown setting 'concurency'; did you mean 'concurrency'?"),
            ({"CONCURRENCY": 1}, "unknown setting 'CONCURRENCY'; did you mean 'concurrency'?"),
            ({"embeded_folder": 1}, "unknown setting 'embeded_folder'; did you mean 'embedded_folder'?"),
            ({"concurrency": 0}, "CONCURRENCY must be between 1 and 100000, got 0"),
            ({"url": 5}, "the broker must be a URL or a redis-py client, got builtins.int"),
            ({"url": b"redis://x"}, "the broker must be a URL or a redis-py client, got builtins.bytes"),
            ({"url": "http://host"}, "cannot use the broker URL: 'http' is not a known scheme"),
            ({"url": "redis://host:99999/0"}, "cannot use the broker URL: a host must be written host:port"),
            ({"url": " "}, "URL must not be blank"),
        ],
    )
    def test_an_invalid_setting_is_refused_before_a_connection(self, values: Any, message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            TaskQ(**values)

        assert str(caught.value).startswith(message)

    def test_from_env_refuses_an_invalid_setting(self) -> None:
        with pytest.raises(ConfigurationError, match="unknown setting 'prefx'; did you mean 'prefix'"):
            TaskQ.from_env({}, prefx="a")
        with pytest.raises(ConfigurationError, match="cannot use the broker URL"):
            TaskQ.from_env({"TASKQ_URL": "nowhere"})

    def test_no_connection_is_opened_before_the_first_use(self) -> None:
        """A queue application can be created without Redis."""
        taskq = TaskQ("redis://127.0.0.1:1/0")

        assert taskq.client is taskq.client
        assert taskq.async_client is taskq.runtime.async_client
        assert repr(taskq) == "<TaskQ with 0 tasks>"


class TestLife:
    def test_after_close_the_next_use_opens_new_connections(
        self, redis_server: RedisServer, wait_for_closes: Callable[[], None]
    ) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")

        task.delay()
        taskq.close()
        wait_for_closes()
        task.delay()
        taskq.close()

        wait_for_closes()
        assert redis_server.client.llen("asynq:{default}:pending") == 2

    def test_a_client_of_a_closed_application_reports_that_it_is_closed(self, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis)
        client = taskq.client
        taskq.close()

        with pytest.raises(EnqueueError, match="closed"):
            client.enqueue(taskq.remote("t").s())

    async def test_aclose_closes_plain_and_asynchronous_clients(
        self, redis_server: RedisServer, wait_for_closes: Callable[[], None]
    ) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        await asyncio.to_thread(taskq.remote("t").delay)
        await taskq.remote("t").adelay()

        await taskq.aclose()
        await taskq.aclose()

        wait_for_closes()

    def test_ended_event_loops_leave_no_connection(
        self, redis_server: RedisServer, wait_for_closes: Callable[[], None]
    ) -> None:
        """Connections end with their loop, without a ResourceWarning or `aclose`. Many loops run one after another."""
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")

        async def work() -> None:
            await asyncio.gather(*[task.adelay(a=n) for n in range(5)])
            await taskq.async_client.enqueue_many(task.s(a=n) for n in range(5))

        for _ in range(20):
            asyncio.run(work())
        gc.collect()  # an unclosed connection would warn now, and a warning is an error

        wait_for_closes()
        assert redis_server.client.llen("asynq:{default}:pending") == 200
        taskq.close()

    async def test_event_loops_in_threads_share_an_application(
        self, redis_server: RedisServer, wait_for_closes: Callable[[], None]
    ) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")

        async def work() -> None:
            for n in range(20):
                await task.adelay(a=n)

        await asyncio.gather(*[asyncio.to_thread(asyncio.run, work()) for _ in range(4)], work())
        await taskq.aclose()

        wait_for_closes()
        assert redis_server.client.llen("asynq:{default}:pending") == 100


class TestMiddleware:
    async def test_the_base_middleware_only_calls_the_next_one(self) -> None:
        context = TaskContext(id="1", name="t", queue="q")

        async def later() -> int:
            return 2

        assert Middleware().around(context, lambda: 1) == 1
        assert await Middleware().aaround(context, later) == 2


class TestSecrets:
    """A password is never shown: not in a repr, an error or its causes, nor in a log line."""

    def shown(self, *things: object) -> str:
        return "\n".join(f"{thing!r} {thing!s}" for thing in things)

    def everything(self, taskq: TaskQ) -> list[object]:
        runtime = taskq.runtime
        return [
            taskq,
            taskq.settings,
            taskq.client,
            taskq.async_client,
            runtime,
            runtime.endpoint,
            runtime.endpoint.address,
            runtime.endpoint.connection,
            runtime.runner,
            runtime.async_runner,
            runtime.keys,
            taskq.remote("t"),
            taskq.remote("t").s(),
        ]

    @rows(
        "url",
        [
            f"redis://user:{ENCODED}@127.0.0.1:1/0",
            f"redis://:{ENCODED}@127.0.0.1:1/0",
            f"rediss://user:{ENCODED}@127.0.0.1:1/0",
            f"unix://user:{ENCODED}@/nowhere/redis.sock?db=1",
            f"redis+cluster://user:{ENCODED}@127.0.0.1:1",
            f"redis+sentinel://user:{ENCODED}@127.0.0.1:1/main?sentinel_password={ENCODED}",
        ],
    )
    async def test_the_password_of_a_url_is_never_shown(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        taskq = TaskQ(url, enqueue_timeout=0.01)
        task = taskq.remote("t")
        errors: list[BaseException] = []

        for send in (lambda: asyncio.to_thread(task.delay), task.adelay):
            with pytest.raises(EnqueueError) as caught:
                await send()
            errors.append(caught.value)
        handle_text = self.shown(*self.everything(taskq))
        await taskq.aclose()

        texts = [handle_text, caplog.text]
        for error in errors:
            texts += [*traceback.format_exception(error), self.shown(error), str(pickle.loads(pickle.dumps(error)))]
        assert all(CANARY not in text and ENCODED not in text for text in texts)

    def test_the_password_of_an_existing_client_is_never_shown(self) -> None:
        client = redis.Redis(host="127.0.0.1", port=1, password=CANARY)
        taskq = TaskQ(client, enqueue_timeout=0.01)

        with pytest.raises(EnqueueError) as caught:
            taskq.remote("t").delay()

        text = self.shown(*self.everything(taskq)) + "".join(traceback.format_exception(caught.value))
        assert CANARY not in text

    @rows(
        "url",
        [
            f"reddis://user:{ENCODED}@h:1/0",
            f"redis:/user:{ENCODED}@h:1/0",
            f"redis://user:{ENCODED}@h:99999/0",
            f"redis://user:{ENCODED}@:1/0",
            f"redis://user:{ENCODED}@h:1/zero",
            f"redis://user:{ENCODED}@h:1/0?passwort=x",
            f"redis://user:{ENCODED}/h:1/0",
            f"redis://user:{CANARY}@h:1/0?x@y",
            f":{ENCODED}@h:1/0",
        ],
    )
    def test_the_error_of_an_invalid_url_hides_the_password(self, url: str) -> None:
        for build in (lambda: TaskQ(url), lambda: TaskQ.from_env({"TASKQ_URL": url})):
            with pytest.raises(ConfigurationError) as caught:
                build()
            text = "".join(traceback.format_exception(caught.value, limit=0)) + repr(caught.value)
            assert "c4nary" not in text

    async def test_the_error_of_a_refused_password_hides_it(self) -> None:
        """A wrong password raises a specific error at once, with the task's id and without the password."""
        with RedisServer(password="right") as server:
            taskq = TaskQ(str(server.url).replace("right", ENCODED), enqueue_timeout=30)
            task = taskq.remote("t").using(task_id="id-1")
            for send in (lambda: asyncio.to_thread(task.delay), task.adelay):
                with pytest.raises(EnqueueError) as caught:
                    await send()
                assert isinstance(caught.value.__cause__, BrokerAuthenticationError)
                assert caught.value.task_id == "id-1"
                assert "refused the user or password" in str(caught.value)
                assert "c4nary" not in "".join(traceback.format_exception(caught.value))
            await taskq.aclose()
            good = TaskQ(server.url, enqueue_timeout=30)
            assert (await good.remote("t").adelay()).is_sent
            await good.aclose()


class TestQueues:
    """A task in a queue that no worker serves never runs, so enqueueing it warns."""

    def test_a_queue_that_is_not_in_the_settings_warns_with_the_nearest_name(self, redis_server: RedisServer) -> None:
        taskq = TaskQ(redis_server.url, queues={"critical": 6, "default": 3})
        charge = taskq.task(name="shop.charge", queue="critical")(lambda: None)
        charge.delay()

        with pytest.warns(QueueUnservedWarning) as said:
            charge.using(queue="critcal").delay()

        (warning,) = said
        assert str(warning.message) == (
            "task 'shop.charge' goes to queue 'critcal', which is not in QUEUES (critical, default), "
            "so workers do not serve it by default; did you mean 'critical'?"
        )
        assert warning.filename == __file__
        taskq.close()

    def test_without_configured_queues_and_for_remote_tasks_no_queue_warning_is_raised(
        self, redis_server: RedisServer
    ) -> None:
        plain, own = TaskQ(redis_server.url), TaskQ(redis_server.url, queues=["default"])
        plain.task(name="mail", queue="mail")(lambda: None).delay()
        own.remote("go:mail", queue="go").delay(b"")
        plain.close()
        own.close()


class TestInclude:
    @rows("value", ["shop.tasks", [""], ["shop/tasks.py"], ["shop."], [1], {"shop": 1}])
    def test_an_invalid_list_of_modules_is_refused(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="INCLUDE must be a list of module names"):
            TaskQ(include=value)

    def test_the_environment_lists_modules_with_commas(self) -> None:
        taskq = TaskQ.from_env({"TASKQ_INCLUDE": "shop.tasks, shop.reports"})

        assert taskq.settings.include == ("shop.tasks", "shop.reports")

    def test_a_worker_imports_the_listed_modules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "included_tasks.py").write_text("imported = True\n")
        monkeypatch.syspath_prepend(tmp_path)
        taskq = TaskQ(include=["included_tasks"])
        assert "included_tasks" not in sys.modules

        Worker(taskq)

        assert sys.modules.pop("included_tasks").imported
