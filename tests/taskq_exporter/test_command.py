"""`taskq exporter`."""

import sys

import pytest

from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run

pytestmark = pytest.mark.redis


def test_the_command_listens_only_on_this_machine_by_default(run: Run) -> None:
    refused = run("exporter", "--host", "0.0.0.0", status=1).output

    assert "may be reached from other machines" in refused
    assert "--open" in refused


def test_a_port_in_use_is_reported(run: Run) -> None:
    with RedisServer(tcp=True) as other:
        assert "cannot listen" in run("exporter", "--port", str(other.port), status=1).output


def test_a_missing_package_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith(("prometheus_client", "taskq_exporter"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    assert "pip install 'taskq-asynq[exporter]'" in run("exporter", status=1).output
