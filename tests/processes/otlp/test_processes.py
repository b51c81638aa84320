"""Test that forking processes lose no spans, and that unavailable collectors delay no tasks."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from taskq_core import TaskQ
from tests.processes.otlp.processes import LAUNCHER, ROOT
from tests.processes.otlp.receiver import OtlpReceiver
from tests.redis_server import RedisServer, free_port


def environment(redis: RedisServer, endpoint: str, **more: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        "DJANGO_SETTINGS_MODULE": "tests.processes.otlp.settings",
        "TASKQ_URL": redis.url,
        "TASKQ_ENQUEUE_TIMEOUT": "30",  # long enough for a busy machine
        "PYTHONPATH": str(ROOT),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        **more,
    }


@contextmanager
def running(*command: str, env: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(LAUNCHER), sys.executable, *command], env=env, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def until(condition: Callable[[], object], what: str, *, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.02)


def test_children_of_a_forking_server_lose_no_span_at_their_end(tmp_path: Path) -> None:
    """A child ends after five requests, long before the interval of its exporter ends."""
    port = free_port()
    with RedisServer() as redis, OtlpReceiver() as receiver:
        env = environment(redis, receiver.http_url, OTEL_SERVICE_NAME="site", OTEL_BSP_SCHEDULE_DELAY="600000")
        command = (
            "-m",
            "gunicorn",
            "tests.processes.otlp.wsgi",
            f"--bind=127.0.0.1:{port}",
            "--workers=2",
            "--max-requests=5",
        )
        with running(*command, env=env, log=tmp_path / "gunicorn.log"):

            def answers() -> bool:
                try:
                    return httpx.get(f"http://127.0.0.1:{port}/none").status_code == 404
                except httpx.TransportError:
                    return False

            until(answers, "it answers")
            for _ in range(40):
                answer = httpx.get(f"http://127.0.0.1:{port}/enqueue/apack", timeout=60)
                assert answer.status_code == 200
        # the server and its last children have ended
        sent = [span for span in receiver.spans if span.name == "send default"]
        requests = [span for span in receiver.spans if span.name == "GET enqueue/<str:what>"]

    assert len(sent) == len(requests) == 40
    assert {span.parent_id for span in sent} == {span.span_id for span in requests}
    assert len({span.attributes["messaging.client.id"] for span in sent}) >= 40 // 5 // 2  # several children


class Collector:
    """A collector with faults that listens on a port."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        if kind == "down":
            self._socket.close()
        else:
            self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                held, _ = self._socket.accept()
            except OSError:
                return
            self._held.append(held)
            if self._kind != "silent":
                threading.Thread(target=self._answer, args=(held,), daemon=True).start()

    def _answer(self, held: socket.socket) -> None:
        with held, suppress(OSError):  # the client may have timed out
            held.recv(65536)
            if self._kind == "slow":
                time.sleep(0.9)  # just before the timeout
            status = b"200 OK" if self._kind == "slow" else b"503 Service Unavailable"
            held.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    def close(self) -> None:
        if self._kind != "down":
            self._socket.shutdown(socket.SHUT_RDWR)  # close() alone would not wake the thread in accept()
            self._thread.join()
        self._socket.close()
        for held in self._held:
            held.close()


@pytest.mark.parametrize(
    "kind", ["down", "silent", *(pytest.param(each, marks=pytest.mark.nightly) for each in ("slow", "refuses"))]
)
def test_an_unavailable_collector_delays_no_task_and_no_exit(kind: str, tmp_path: Path) -> None:
    """All tasks end although the collector accepts few spans and the queue of spans is much too small."""
    collector = Collector(kind)
    log = tmp_path / "worker.log"
    with RedisServer() as redis, OtlpReceiver() as receiver:  # which receives metrics, so drops are reported
        taskq = TaskQ(redis.url, enqueue_timeout=30)
        taskq.client.enqueue_many(taskq.remote("depot:apack").s(secret="x") for _ in range(500))
        env = environment(
            redis,
            collector.url,
            OTEL_BSP_MAX_QUEUE_SIZE="64",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="16",
            OTEL_BSP_SCHEDULE_DELAY="50",
            OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="1",
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{receiver.http_url}/v1/metrics",
            OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED="true",
        )
        with running("-m", "django", "runworker", "--concurrency", "4", env=env, log=log) as worker:
            until(lambda: not redis.client.keys("asynq:{default}:t:*"), "all tasks ran")
        status = worker.returncode
        dropped = [
            point.value
            for point in receiver.points
            if point.name == "otel.sdk.processor.span.processed" and point.attributes.get("error.type") == "queue_full"
        ]
    collector.close()

    assert status == 0, log.read_text()
    assert re.search("(?i)queue.* full", log.read_text())  # the SDK logs its drops
    assert max(dropped, default=0) >= 1  # and counts it
