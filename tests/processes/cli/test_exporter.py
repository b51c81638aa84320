"""`taskq exporter` as a process."""

import re
import signal
import subprocess
import sys

import httpx
import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_exporter.scraping import Scraped

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_stopped(app: TaskQ, redis_server: RedisServer, stop: signal.Signals) -> None:
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
    assert found.by("asynq_queue_size", "queue") == {"default": 1}
    assert "process_cpu_seconds_total" in found.samples
    assert (process.returncode, errors) == (0, "")
