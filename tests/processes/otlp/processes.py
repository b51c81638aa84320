"""The three processes, each under OpenTelemetry's launcher."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.processes.otlp.receiver import OtlpReceiver, Point, Span
from tests.redis_server import RedisServer, free_port

LAUNCHER = Path(sys.executable).with_name("opentelemetry-instrument")
ROOT = Path(__file__).resolve().parents[3]


class Depot:
    """A site, an app and a worker, each a process under OpenTelemetry's launcher."""

    def __init__(self, redis: RedisServer, receiver: OtlpReceiver, protocol: str, folder: Path, **env: str) -> None:
        self.receiver = receiver
        self.redis = redis
        self._folder = folder
        url = receiver.grpc_url if protocol == "grpc" else receiver.http_url
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "DJANGO_SETTINGS_MODULE": "tests.processes.otlp.settings",
            "TASKQ_URL": redis.url,
            "TASKQ_ENQUEUE_TIMEOUT": "30",  # long enough for a busy machine
            "PYTHONPATH": str(ROOT),
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BLRP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
            **env,
        }
        self.scraped = {service: free_port() for service in ("site", "app", "worker")}
        """Ports of the processes' metrics if OTEL_METRICS_EXPORTER is "prometheus"."""
        self._processes: list[subprocess.Popen[bytes]] = []
        if "DEPOT_DATABASE" in env:
            migrate = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
            subprocess.run(migrate, env=self._env, cwd=ROOT, check=True, timeout=60)
        site, app = free_port(), free_port()
        self._start("site", "-m", "tests.processes.otlp.django_site", str(site))
        self._start("app", "-m", "uvicorn", "tests.processes.otlp.fastapi_app:app", "--port", str(app))
        self.worker = self._start("worker", "-m", "django", "runworker", "--concurrency", "4")
        self.site, self.app = f"http://127.0.0.1:{site}", f"http://127.0.0.1:{app}"

    def _start(self, service: str, *command: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(LAUNCHER), sys.executable, *command],
                env={
                    **self._env,
                    "OTEL_SERVICE_NAME": service,
                    "OTEL_EXPORTER_PROMETHEUS_PORT": str(self.scraped[service]),
                },
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        return process

    def wait(self) -> None:
        """Wait until the site and the app respond."""

        def answers(url: str) -> bool:
            try:
                httpx.get(url, timeout=5)
            except httpx.TransportError:
                return False
            return True

        for url in (self.site, self.app):
            self.receiver.until(lambda url=url: answers(url), f"{url} answers")  # type: ignore[misc]  # a default

    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)

    # --- what came ----------------------------------------------------------------------------------------------------

    def ask(self, what: str, *, by: str = "site") -> str:
        """Send a request with a new trace, and return the trace id."""
        trace_id = os.urandom(16).hex()
        headers = {"traceparent": f"00-{trace_id}-{os.urandom(8).hex()}-01"}
        if by == "site":
            answer = httpx.get(f"{self.site}/enqueue/{what}", headers=headers, timeout=60)
        else:
            answer = httpx.post(f"{self.app}/enqueue/{what}", headers=headers, timeout=60)
        assert answer.status_code == 200, self.log()
        return trace_id

    def trace(self, trace_id: str, *expected: str) -> list[Span]:
        """Wait until a trace has spans with these names, and return its spans."""

        def found() -> list[Span]:
            spans = [span for span in self.receiver.spans if span.trace_id == trace_id]
            names = [span.name for span in spans]
            return spans if all(names.count(name) >= expected.count(name) for name in expected) else []

        spans: list[Span] = self.receiver.until(found, f"the trace has {expected}; {self.log()[-2000:]}")
        return spans

    def metric(self, name: str, service: str, labels: dict[str, str]) -> list[Point]:
        """Wait until a process reports a metric, and return its points."""

        def found() -> list[Point]:
            wanted = labels.items()
            points = [each for each in self.receiver.points if (each.name, each.service) == (name, service)]
            return [each for each in points if wanted <= each.attributes.items()]

        points: list[Point] = self.receiver.until(found, f"the metric {name} is told")
        return points
