"""Fixtures for pytest: those of `taskq_core.testing.plugin` for the project's queue application.

Load them in the `conftest.py` of your tests::

    pytest_plugins = ["taskq_django.testing.plugin"]

The transaction of pytest-django's fixture `db` counts as committed, as in `taskq_django.testing.capture`. To make tasks
wait for a commit, define a fixture `taskq_as_committed` that returns False.
"""

from collections.abc import Awaitable, Callable, Iterator

import pytest

from taskq_core import TaskQ
from taskq_core.testing import Captured, TaskRun
from taskq_django.app import taskq
from taskq_django.testing.blocks import adrain, capture, drain, eager

__all__ = ["taskq_adrain", "taskq_app", "taskq_as_committed", "taskq_capture", "taskq_drain", "taskq_eager"]


@pytest.fixture
def taskq_app() -> TaskQ:
    """The project's queue application."""
    return taskq


@pytest.fixture
def taskq_as_committed() -> bool:
    """Whether the transaction around a test counts as committed."""
    return True


@pytest.fixture
def taskq_capture(taskq_as_committed: bool) -> Iterator[Captured]:
    """Tasks that the test enqueues. They are not sent and do not run by themselves."""
    with capture(as_committed=taskq_as_committed) as tasks:
        yield tasks


@pytest.fixture
def taskq_eager(taskq_as_committed: bool) -> Iterator[Captured]:
    """Tasks that the test enqueues. Each runs at once, and its error fails the test at the end."""
    with eager(as_committed=taskq_as_committed) as tasks:
        yield tasks


@pytest.fixture
def taskq_drain(taskq_capture: Captured) -> Callable[..., list[TaskRun]]:
    """Return `taskq_django.testing.drain`, which runs a worker on the test's tasks until none is due."""
    return drain


@pytest.fixture
def taskq_adrain(taskq_capture: Captured) -> Callable[..., Awaitable[list[TaskRun]]]:
    """Return `taskq_django.testing.adrain`, which is `taskq_drain` for coroutines."""
    return adrain
