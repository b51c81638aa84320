"""Alerts and dashboard: rules against recorded series, runbooks, and whether the series they ask for exist.

Whether they exist is asked of a real Prometheus that scrapes a running site and a running worker: how OpenTelemetry's
names become Prometheus's is fixed by OpenTelemetry's specification (compatibility/prometheus_and_openmetrics), for a
scrape and for what Prometheus receives over OTLP alike.
"""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.tools import DEPLOY, ROOT, run, tool
from tests.otlp.processes import Depot
from tests.otlp.receiver import OtlpReceiver
from tests.redis_server import RedisServer, free_port

RULES = DEPLOY / "prometheus" / "taskq-rules.yml"
PATIENCE_S = 60.0


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> dict[str, str]:
    """All that is asked of Prometheus: by alerts, by the dashboard, by KEDA."""
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    dashboard = json.loads((DEPLOY / "grafana/dashboards/taskq.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    keda = (DEPLOY / "kubernetes/components/keda/scaledobject.yaml").read_text(encoding="utf-8")
    for trigger in yaml.safe_load(keda)["spec"]["triggers"]:
        found[f"KEDA {trigger['name']}"] = trigger["metadata"]["query"]
    return {title: text.replace("$__rate_interval", "1m").replace("$queue", ".*") for title, text in found.items()}


def test_the_rules_do_what_they_say_on_recorded_series() -> None:
    run(tool("promtool"), "check", "config", str(DEPLOY / "prometheus/prometheus.yml"))

    run(tool("promtool"), "test", "rules", str(DEPLOY / "prometheus/taskq-rules.test.yml"))


def test_the_tests_of_the_rules_would_notice_another_threshold(tmp_path: Path) -> None:
    for name in ("taskq-rules.yml", "taskq-rules.test.yml"):
        text = (DEPLOY / "prometheus" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("> 10000", "> 9999").replace("== 0", "== 2"), encoding="utf-8")

    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(tmp_path / "taskq-rules.test.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    for alert in ("TaskqBacklog", "TaskqRedisUnreachable", "TaskqNoScheduler"):
        assert alert in done.stdout + done.stderr


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_recorded_series_that_raise_it_and_a_page(rule: dict[str, Any]) -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus/taskq-rules.test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert any(case.get("exp_alerts") for case in cases)
    assert any(not case.get("exp_alerts") for case in cases)
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes a site and a worker which have done a bit of everything; its address."""
    program = tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "DEPOT_DATABASE": str(folder / "db.sqlite3"),
        "DEPOT_ENQUEUE": "outbox",
    }
    with RedisServer() as redis, OtlpReceiver() as receiver:
        depot = Depot(redis, receiver, "http/protobuf", folder, **env)
        targets = [f"127.0.0.1:{each}" for each in depot.scraped.values()]
        config = {
            "scrape_configs": [{"job_name": "depot", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}]
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        server = subprocess.Popen(
            [
                program,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ],
            cwd=folder,
        )
        try:
            _wait_for(port)
            depot.wait()
            for what in ("pack", "broken", "flaky", "kept", "kept"):
                depot.ask(what)
            for metric in (
                "asynq_outbox_rows",
                "asynq_tasks_retried_total",
                "asynq_tasks_failed_total",
                "asynq_queue_size",
            ):
                receiver.until(lambda metric=metric: series(url, metric), f"{metric} is scraped; {depot.log()[-2000:]}")
            yield url
        finally:
            depot.close()
            server.terminate()
            server.wait(30)


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


@pytest.mark.parametrize("title", sorted(expressions()))
def test_every_series_and_label_that_is_asked_for_exists(prometheus: str, title: str) -> None:
    expression = expressions()[title]
    named = re.findall(r"\b((?:asynq|messaging)_[a-z_]+)\b(?!\s*(?:=|!|\)|,|\}))", expression)
    labels = set(re.findall(r"\b([a-z_]+)\s*(?:=~|!=|=)", expression))
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        labels |= {each.strip() for each in grouped.split(",")}
    metrics = sorted(set(named) | set(re.findall(r"(asynq_[a-z_]+)(?=[\[{)])", expression)) - labels)

    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=60).json()
    assert answer["status"] == "success", answer
    assert metrics
    known: set[str] = set()
    for metric in metrics:
        found = series(prometheus, metric)
        assert found, f"no series {metric}"
        known |= {label for each in found for label in each}
    assert labels <= known
