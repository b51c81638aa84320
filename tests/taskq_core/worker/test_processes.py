"""Test tasks in separate processes: their arguments, their end, and their isolation from other tasks."""

import os
from typing import Any

import pytest

from taskq_core import (
    ConfigurationError,
    Settings,
    TaskDefinitionError,
    TaskQ,
)
from taskq_core.testing import adrain
from tests.processes.worker import process_tasks as tasks
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
)

pytestmark = pytest.mark.redis


@pytest.fixture
def app(redis_server: RedisServer) -> Any:
    """The application of `process_tasks`, on the test's server."""
    defaults: Any = {"retention": 600, "max_retry": 0}
    tasks.app.configure(Settings(url=redis_server.url, defaults=defaults, enqueue_timeout=PATIENCE_S))
    yield tasks.app
    tasks.app.close()


async def test_a_drained_process_task_runs_in_the_process_of_the_test(app: TaskQ) -> None:
    handle = await tasks.who.adelay()

    await adrain(app)

    assert (await handle.aresult(PATIENCE_S))["pid"] == os.getpid()
    await app.aclose()


def nobody(text: str) -> None: ...
async def coroutine(text: str) -> None: ...


class TestRefused:
    def test_a_coroutine_function_is_refused(self) -> None:
        with pytest.raises(TaskDefinitionError, match="takes plain functions"):
            TaskQ().task(executor="process")(coroutine)

    def test_a_nested_function_is_refused(self) -> None:
        def inner() -> None: ...

        with pytest.raises(TaskDefinitionError, match="at the top of a module"):
            TaskQ().task(executor="process")(inner)
        with pytest.raises(TaskDefinitionError, match="at the top of a module"):
            TaskQ().task(name="t", executor="process")(lambda: None)

    def test_an_unknown_executor_is_refused(self, subtests: pytest.Subtests) -> None:
        for executor in ["proces", "", None, 1]:
            with (
                subtests.test(executor=executor),
                pytest.raises(ConfigurationError, match="executor must be 'thread' or 'process'"),
            ):
                TaskQ().task(executor=executor)(nobody)  # type: ignore[arg-type]  # what is tested

    def test_an_executor_for_a_single_call_is_refused(self) -> None:
        """The executor belongs to the task definition, because the worker may be another program."""
        with pytest.raises(ConfigurationError, match="unknown task option 'executor'"):
            tasks.who.using(executor="process")  # type: ignore[call-arg]  # what is tested
