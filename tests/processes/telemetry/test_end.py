"""Test the exit of a worker whose collector does not respond."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.telemetry.test_configure import Receiver
from tests.taskq_core.worker.conftest import until_blocking

ROOT = Path(__file__).parents[3]
SHOP = """
from taskq_core import TaskQ

taskq = TaskQ({url!r})


@taskq.periodic("@every 1s")
@taskq.task(name="shop:greet")
def greet() -> None: ...
"""


@pytest.mark.redis
@pytest.mark.parametrize("command", ["worker", "worker --processes 2", "scheduler"])
def test_an_unresponsive_collector_delays_the_exit_by_at_most_its_timeout(
    redis_server: RedisServer, receiver: Receiver, tmp_path: Path, command: str
) -> None:
    """With OpenTelemetry's launcher, exporters would wait for a minute."""
    receiver.release.clear()
    (tmp_path / "shop.py").write_text(SHOP.format(url=redis_server.unix_url))
    launcher = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    assert launcher is not None
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "60",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "60",
        "OTEL_BSP_EXPORT_TIMEOUT": "60000",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
    }
    name, *options = command.split()
    program = [launcher, sys.executable, "-m", "taskq_core", name, "shop:taskq", *options]
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(program, cwd=tmp_path, env=os.environ | environment, stderr=log, stdout=log)
    try:
        if name == "worker":
            for _ in range(4):
                app.remote("shop:greet", retention=600).delay().result(timeout=60)
        else:
            until_blocking(lambda: redis_server.client.llen("asynq:{default}:pending") > 0)
        worker.send_signal(signal.SIGINT)
        begun = time.monotonic()
        status = worker.wait(timeout=50)
        took_s = time.monotonic() - begun
    finally:
        worker.kill()
        worker.wait()
        app.close()

    output = (tmp_path / "log").read_text()
    assert status == 0
    assert took_s < 12, output  # 2 s for telemetry, the rest for a busy machine
    assert "telemetry was not sent within" in output


@pytest.mark.redis
def test_a_worker_logs_to_standard_error_and_to_the_collector_and_sends_metrics_once(
    redis_server: RedisServer, receiver: Receiver, tmp_path: Path
) -> None:
    """The launcher has a handler on the root logger."""
    (tmp_path / "shop.py").write_text(SHOP.format(url=redis_server.unix_url))
    launcher = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    assert launcher is not None
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
    }
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    app.remote("shop:greet").delay()
    app.close()

    done = subprocess.run(
        [launcher, sys.executable, "-m", "taskq_core", "worker", "shop:taskq", "--burst"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    paths = [path for path, _ in receiver.requests]
    logs = b"".join(body for path, body in receiver.requests if path == "/v1/logs")
    assert "INFO taskq.worker: task completed: name=shop:greet" in done.stderr
    assert paths.count("/v1/metrics") == 1
    for text in (b"task completed", b"task_id", b"task_name", b"attempt"):
        assert text in logs


@pytest.mark.redis
def test_a_collector_that_refuses_connections_is_tried_once(redis_server: RedisServer, tmp_path: Path) -> None:
    """Nothing is exported again while the interpreter exits."""
    (tmp_path / "shop.py").write_text(SHOP.format(url=redis_server.unix_url))
    launcher = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    assert launcher is not None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        }
        done = subprocess.run(
            [launcher, sys.executable, "-m", "taskq_core", "worker", "shop:taskq", "--burst"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

    assert done.stderr.count("Failed to export metrics batch") <= 1
