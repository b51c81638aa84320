"""`taskq health`: can it work now?"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.doctor.probing import within
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from taskq_core.worker.listener import WorkerListener
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run

RunJson = Callable[..., Any]

HEALTH = ("health", "--timeout", "30")
"""Of a server that answers, which takes its time on a busy machine."""


class Started(WorkerListener):
    """Tells of a worker that has started."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.worker: Worker | None = None

    def started(self, worker: Worker) -> None:
        self.worker = worker
        self.event.set()


@contextmanager
def working(app: TaskQ, **config: Any) -> Iterator[Worker]:
    listener = Started()
    background = BackgroundWorker(
        lambda: Worker(app, WorkerConfig.from_settings(app.settings, **config), listener=listener)
    )
    background.start()
    try:
        assert listener.event.wait(30)
        assert listener.worker is not None
        yield listener.worker
    finally:
        assert background.stop(30)


@pytest.mark.redis
class TestOnRedis:
    def test_a_redis_that_accepts_tasks_is_ready(
        self, run: Run, run_json: RunJson, app: TaskQ, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TASKQ_QUEUES", "critical=6,default=1")
        app.remote("a").delay()

        assert run(*HEALTH).stdout.splitlines() == ["ready", "  critical: 0 pending", "  default: 1 pending"]
        assert run_json(*HEALTH) == {
            "status": "ready",
            "queues": {"critical": {"ok": True, "pending": 0}, "default": {"ok": True, "pending": 1}},
        }

    def test_the_check_changes_nothing(self, run: Run, redis_server: RedisServer) -> None:
        run(*HEALTH)
        run(*HEALTH, "--worker", status=1)

        assert redis_server.client.keys("*") == []

    def test_a_damaged_queue_is_not_ready(self, run_json: RunJson, redis_server: RedisServer) -> None:
        redis_server.client.set("asynq:{default}:pending", "not a list")

        document = run_json(*HEALTH, status=1)

        assert document["status"] == "unready"
        assert document["reason"] == "queue 'default': asynq:{default}:pending is a string"
        assert document["queues"] == {"default": {"ok": False, "problem": "asynq:{default}:pending is a string"}}

    def test_a_server_that_refuses_writes_is_not_ready(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        with RedisServer(options={"min-replicas-to-write": "1"}) as server:
            monkeypatch.setenv("TASKQ_URL", server.unix_url)

            def end_the_wait() -> None:
                while "cmdstat_eval" not in server.client.info("commandstats"):
                    pass  # Redis has not refused the script yet
                clock.skip(60)

            skipping = threading.Thread(target=end_the_wait)
            skipping.start()
            assert "NOREPLICAS" in run(*HEALTH, "--url", server.unix_url, status=1).stdout
            skipping.join()

    def test_a_worker_on_this_machine_is_ready(self, run: Run, run_json: RunJson, app: TaskQ) -> None:
        host = socket.gethostname()
        told = f"unready: no worker of this machine ({host}) takes tasks"
        assert run(*HEALTH, "--worker", status=1).stdout.splitlines()[0] == told

        with working(app):
            while run_json(*HEALTH, "--worker", status=None)["status"] != "ready":
                pass  # its first heartbeat is on its way
            assert run_json(*HEALTH, "--worker")["workers"] == 1
            assert "  workers of this machine: 1" in run(*HEALTH, "--worker").stdout

        assert run(*HEALTH, "--worker", status=1).stdout.splitlines()[0] == told

    def test_a_worker_on_another_machine_does_not_count(
        self, run_json: RunJson, app: TaskQ, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with working(app):
            while run_json(*HEALTH, "--worker", status=None)["status"] != "ready":
                pass
            monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")

            assert run_json(*HEALTH, "--worker", status=1)["workers"] == 0

    def test_the_health_port_of_a_worker_is_read(self, run: Run, run_json: RunJson, app: TaskQ) -> None:
        with working(app, health_port=0) as worker:
            port = str(worker.health_port)
            while (document := run_json(*HEALTH, "--port", port, status=None))["status"] == "starting":
                pass  # its first look at the queues is on its way

            assert (document["status"], document["concurrency"]) == ("ready", 10)
            assert run(*HEALTH, "--port", port).stdout.splitlines() == ["ready", "  default: 0 pending"]
        assert f"127.0.0.1:{port} does not answer health checks" in run(*HEALTH, "--port", port, status=1).stdout


@pytest.mark.usefixtures("time_flies")
def test_an_unreachable_redis_is_not_ready(run_json: RunJson) -> None:
    document = run_json("health", "--url", "redis://:secret@127.0.0.1:1/0", status=1)

    assert document["reason"].startswith("cannot reach redis://:***@127.0.0.1:1/0")
    assert document["queues"] == {}


@pytest.mark.parametrize("words", [("--url", "redis://127.0.0.1:{port}/0"), ("--port", "{port}")])
def test_the_check_ends_at_its_timeout(run_json: RunJson, words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        said = run_json("health", "--timeout", "0.2", *(word.format(port=port) for word in words), status=1)

    assert said["status"] == "unready"
    words_for_it = ("did not answer within 0.2 seconds", "cannot reach", "timed out")  # whichever notices first
    assert any(each in said["reason"] for each in words_for_it)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"+OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>", b""]
)
def test_a_port_of_another_program_is_not_ready(run_json: RunJson, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        document = run_json("health", "--port", str(server.getsockname()[1]), status=1)
        thread.join()

    assert "does not answer health checks" in document["reason"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--port", "1", "--worker"), "give either --port"),
        (("--host", "h"), "--host needs --port"),
        (("--timeout", "0"), "--timeout"),
        (("--port", "0"), "--port"),
    ],
)
def test_invalid_options_are_refused(run: Run, words: tuple[str, ...], told: str) -> None:
    assert told in run("health", *words, status=2).stderr


class TestWithin:
    def test_the_time_limit_returns_results_and_raises_errors(self) -> None:
        assert within(30, lambda: 7) == 7
        with pytest.raises(KeyError):
            within(30, lambda: {}[1])

    def test_a_call_over_the_time_limit_is_abandoned(self) -> None:
        release = threading.Event()
        try:
            with pytest.raises(TimeoutError):
                within(0.01, lambda: release.wait(60))
        finally:
            release.set()
