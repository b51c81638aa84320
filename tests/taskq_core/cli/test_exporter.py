"""`taskq exporter`."""

import re
import signal
import subprocess
import sys

import httpx
import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run
from tests.taskq_core.exporter.scraping import Scraped

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(
    app: TaskQ, redis_server: RedisServer, stop: signal.Signals
) -> None:
    for queue in ("default", "low"):
        app.remote("plain", queue=queue).delay()
    words = ("exporter", "--port", "0", "--max-queues", "1", "--timeout", "30", "--url", redis_server.unix_url)
    process = subprocess.Popen(
        (sys.executable, "-m", "taskq_core", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"http://\S+", process.stdout.readline())[0]
        found = Scraped(httpx.get(address, trust_env=False, timeout=60).text)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert found.of("taskq_up") == 1
    assert found.by("asynq_queue_size", "queue") == {"default": 1, "_other": 1}
    assert "process_cpu_seconds_total" in found.samples
    assert (process.returncode, errors) == (0, "")


def test_the_command_listens_to_no_other_machine_by_itself(run: Run) -> None:
    refused = run("exporter", "--host", "0.0.0.0", status=1).output

    assert "may be reached from other machines" in refused
    assert "--auth-file" in refused
    assert "--open" in refused


def test_a_port_that_is_taken_is_said(run: Run) -> None:
    with RedisServer(tcp=True) as other:
        assert "cannot listen" in run("exporter", "--port", str(other.port), status=1).output


def test_without_its_package_the_command_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith(("prometheus_client", "taskq_core.exporter"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    assert "pip install 'taskq-asynq[exporter]'" in run("exporter", status=1).output
