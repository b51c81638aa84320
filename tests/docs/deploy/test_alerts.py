"""Alerts and dashboard: rules against recorded series, runbooks, and whether the series they ask for exist.

Whether they exist is asked of a real Prometheus that scrapes a running site and a running worker: how OpenTelemetry's
names become Prometheus's is fixed by OpenTelemetry's specification (compatibility/prometheus_and_openmetrics), for a
scrape and for what Prometheus receives over OTLP alike. Another one scrapes an exporter.
"""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from taskq_core import TaskQ
from taskq_core.broker.operations import samples
from taskq_core.wire.tallies import BOUNDS_S, TypeCounters
from tests.docs.deploy.tools import DEPLOY, ROOT, run, tool
from tests.processes.otlp.processes import Depot
from tests.processes.otlp.receiver import OtlpReceiver
from tests.redis_server import RedisServer, free_port

PATIENCE_S = 60.0
RULES = ("taskq", "taskq-exporter")
"""Of what processes tell by OpenTelemetry, and of what the exporter tells."""


def alerts(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / f"prometheus/{name}-rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions(name: str) -> dict[str, str]:
    """All that is asked of Prometheus: by alerts, by the dashboard, by KEDA."""
    found = {rule["alert"]: rule["expr"] for rule in alerts(name)}
    dashboard = json.loads((DEPLOY / f"grafana/dashboards/{name}.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    if name == "taskq":
        keda = (DEPLOY / "kubernetes/components/keda/scaledobject.yaml").read_text(encoding="utf-8")
        for trigger in yaml.safe_load(keda)["spec"]["triggers"]:
            found[f"KEDA {trigger['name']}"] = trigger["metadata"]["query"]
    return {title: text.replace("$__rate_interval", "1m").replace("$queue", ".+") for title, text in found.items()}


def test_the_rules_do_what_they_say_on_recorded_series() -> None:
    run(tool("promtool"), "check", "config", str(DEPLOY / "prometheus/prometheus.yml"))

    for name in RULES:
        run(tool("promtool"), "test", "rules", str(DEPLOY / f"prometheus/{name}-rules.test.yml"))


def test_every_alert_has_recorded_series_that_raise_it_and_a_page() -> None:
    for name in RULES:
        tests = yaml.safe_load((DEPLOY / f"prometheus/{name}-rules.test.yml").read_text(encoding="utf-8"))["tests"]
        for rule in alerts(name):
            cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
            page, _, anchor = rule["annotations"]["runbook"].partition("#")

            assert any(case.get("exp_alerts") for case in cases), rule["alert"]
            assert any(not case.get("exp_alerts") for case in cases), rule["alert"]
            headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], rule["alert"]


@contextmanager
def prometheus_of(folder: Path, job: str, targets: list[str]) -> Iterator[str]:
    """Start a Prometheus that scrapes every second; its address."""
    port = free_port()
    scrape = {"job_name": job, "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}), encoding="utf-8")
    server = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        cwd=folder,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(port)
        deadline = time.monotonic() + PATIENCE_S
        while httpx.get(f"{url}/-/ready", timeout=PATIENCE_S).status_code != httpx.codes.OK:  # it reads its log first
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes a site and a worker which have done a bit of everything; its address."""
    tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    env = {
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "DEPOT_DATABASE": str(folder / "db.sqlite3"),
        "DEPOT_ENQUEUE": "outbox",
    }
    with RedisServer() as redis, OtlpReceiver() as receiver:
        depot = Depot(redis, receiver, "http/protobuf", folder, **env)
        targets = [f"127.0.0.1:{each}" for each in depot.scraped.values()]
        try:
            with prometheus_of(folder, "depot", targets) as url:
                depot.wait()
                for what in ("pack", "broken", "flaky", "kept", "kept"):
                    depot.ask(what)
                for metric in (
                    "asynq_outbox_rows",
                    "asynq_tasks_retried_total",
                    "asynq_tasks_failed_total",
                    "asynq_queue_size",
                ):
                    receiver.until(
                        lambda metric=metric: series(url, metric), f"{metric} is scraped; {depot.log()[-2000:]}"
                    )
                yield url
        finally:
            depot.close()


@pytest.fixture(scope="module")
def prometheus_of_exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes an exporter of a queue in which something ran; its address."""
    tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus-of-exporter")
    with RedisServer() as redis, closing(TaskQ(redis.unix_url, enqueue_timeout=30)) as taskq:
        taskq.remote("plain").delay()
        ran = {"plain": TypeCounters(1, 1, 1, 5, [1] + [0] * len(BOUNDS_S))}
        taskq.runtime.runner.run(samples.count_runs(taskq.runtime.keys.queue("default"), 1, ran, owner="w", call=1))
        exporter = subprocess.Popen(
            (sys.executable, "-m", "taskq_core", "exporter", "--port", "0", "--url", redis.unix_url),
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert exporter.stdout is not None
        try:
            (address,) = re.findall(r"http://([^/]+)/metrics", exporter.stdout.readline())
            with prometheus_of(folder, "taskq", [address]) as url:
                deadline = time.monotonic() + PATIENCE_S
                while not series(url, "taskq_up"):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)  # between two looks at what was scraped
                yield url
        finally:
            exporter.terminate()
            exporter.wait(30)
            exporter.stdout.close()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def series(url: str, metric: str) -> list[dict[str, str]]:
    """The labels of each series of a metric."""
    answer = httpx.get(f"{url}/api/v1/series", params={"match[]": metric}, timeout=60).json()
    found: list[dict[str, str]] = answer["data"]
    return found


def test_every_series_and_label_in_a_query_exists(prometheus: str) -> None:
    for title, expression in expressions("taskq").items():
        assert_exists(prometheus, title, expression)


def test_every_series_and_label_of_the_exporter_exists(prometheus_of_exporter: str) -> None:
    for title, expression in expressions("taskq-exporter").items():
        assert_exists(prometheus_of_exporter, title, expression)


def assert_exists(prometheus: str, title: str, expression: str) -> None:
    """All that an expression names is there, or comes with one of the next scrapes."""
    named = re.findall(r"\b((?:asynq|messaging|taskq)_[a-z_]+)\b(?!\s*(?:=|!|\)|,|\}))", expression)
    labels = set(re.findall(r"\b([a-z_]+)\s*(?:=~|!=|=)", expression))
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        labels |= {each.strip() for each in grouped.split(",")}
    metrics = sorted(set(named) | set(re.findall(r"\b((?:asynq|taskq)_[a-z_]+)(?=[\[{)])", expression)) - labels)

    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=60).json()
    assert answer["status"] == "success", (title, answer)
    assert metrics, title
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = {metric: series(prometheus, metric) for metric in metrics}
        missing = [metric for metric in metrics if not found[metric]]
        unknown = labels - {label for listed in found.values() for each in listed for label in each}
        if not (missing or unknown) or time.monotonic() > deadline:
            break
        time.sleep(0.1)  # between two looks at what was scraped
    assert not missing, title
    assert not unknown, title
