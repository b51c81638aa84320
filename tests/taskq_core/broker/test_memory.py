"""Test the store in memory."""

import importlib.util
import sys

import pytest

from taskq_core import ConfigurationError
from taskq_core.broker.memory import memory_endpoint
from taskq_core.broker.operations.new_tasks import register_queue
from taskq_core.broker.operations.views import list_queues, ping
from taskq_core.broker.sync import SyncRunner


def test_stores_in_memory_do_not_share_data() -> None:
    first, second = SyncRunner(memory_endpoint()), SyncRunner(memory_endpoint())

    first.run(register_queue("queues", ["a"]))

    assert first.run(ping())
    assert (first.run(list_queues("queues")), second.run(list_queues("queues"))) == (["a"], [])


@pytest.mark.parametrize("missing", ["fakeredis", "lupa"])
def test_the_error_names_the_missing_package(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, missing, None)  # type: ignore[arg-type]  # how an import is made to fail
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))

    with pytest.raises(ConfigurationError, match=r"pip install 'taskq-asynq\[testing\]'"):
        memory_endpoint()
