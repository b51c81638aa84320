"""A queue application that reaches no Redis: what passes by the store in memory fails at once."""

from collections.abc import Iterator

import pytest

from taskq_core import TaskQ


@pytest.fixture
def taskq() -> Iterator[TaskQ]:
    app = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01, queues={"default": 1, "critical": 6})
    yield app
    app.close()
