"""Fixtures for pytest.

Load them in the `conftest.py` of your tests. The fixtures are not loaded automatically, because then every run of
pytest on the machine would import taskq::

    pytest_plugins = ["taskq_core.testing.plugin"]

The option `taskq_app` of pytest's configuration names the queue application, as in `taskq_app = "shop.queue:taskq"`, or
`"taskq_django:taskq"` in a Django project. You can also define a fixture with this name that returns it.
"""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from importlib import import_module

import pytest

from taskq_core import TaskQ
from taskq_core.testing.captured import Captured, capture, eager
from taskq_core.testing.draining import adrain, drain
from taskq_core.testing.records import TaskRun


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the queue application."""
    parser.addini("taskq_app", "the queue application of the taskq fixtures, as module:attribute", default="")


@pytest.fixture
def taskq_app(pytestconfig: pytest.Config) -> TaskQ:
    """The queue application of the other fixtures."""
    named: str = pytestconfig.getini("taskq_app")
    module, colon, attribute = named.partition(":")
    if not colon:
        got = f", got {named!r}" if named else ""
        raise pytest.UsageError(
            "the taskq fixtures need a queue application: set taskq_app = module:attribute in pytest's "
            f"configuration, or write a fixture taskq_app that returns it{got}"
        )
    found = import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    if not isinstance(found, TaskQ):
        raise pytest.UsageError(f"taskq_app must name a TaskQ, but {named!r} is a {type(found).__name__}")
    return found


@pytest.fixture
def taskq_capture(taskq_app: TaskQ) -> Iterator[Captured]:
    """Return a record of the tasks that the test enqueues. The tasks are not sent, and do not run by themselves."""
    with capture(taskq_app) as tasks:
        yield tasks


@pytest.fixture
def taskq_eager(taskq_app: TaskQ) -> Iterator[Captured]:
    """Return a record of the tasks that the test enqueues.

    Each task runs at once. If a task fails, the test fails at its end.
    """
    with eager(taskq_app) as tasks:
        yield tasks


@pytest.fixture
def taskq_drain(taskq_app: TaskQ, taskq_capture: Captured) -> Callable[..., list[TaskRun]]:
    """Return a function that runs a worker until none of the test's tasks is due; see `taskq_core.testing.drain`."""
    return partial(drain, taskq_app)


@pytest.fixture
def taskq_adrain(taskq_app: TaskQ, taskq_capture: Captured) -> Callable[..., Awaitable[list[TaskRun]]]:
    """Return `taskq_drain` for coroutines; see `taskq_core.testing.adrain`."""
    return partial(adrain, taskq_app)
