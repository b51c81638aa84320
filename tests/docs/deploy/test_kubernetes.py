"""The manifests, built by kustomize and checked against the schemas of Kubernetes. No cluster is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from taskq_core.settings import Settings
from tests.docs.deploy.tools import DEPLOY, ROOT, longest_end_s, run, tool

Objects = dict[tuple[str, str], dict[str, Any]]
VERSION = "1.31"


def build(folder: str) -> Objects:
    text = run(tool("kustomize"), "build", str(DEPLOY / "kubernetes" / folder))
    objects = [each for each in yaml.safe_load_all(text) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.fixture(scope="module")
def objects() -> Objects:
    return build("base")


@pytest.mark.parametrize("folder", ["base", "overlays/sentinel", "overlays/cluster"])
def test_every_object_fits_its_schema(folder: str) -> None:
    schema = json.loads(Path(__file__).with_name("scaledobject.schema.json").read_text(encoding="utf-8"))

    for (kind, name), each in build(folder).items():
        assert name
        if kind == "ScaledObject":  # of KEDA, not of Kubernetes
            jsonschema.validate(each, schema)
        else:
            kubernetes_validate.validate(each, VERSION, strict=True)


def _pod(deployment: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


DEPLOYMENTS = ["web", "api", "worker", "scheduler", "exporter"]


def test_pods_have_no_more_rights_than_they_need(objects: Objects) -> None:
    for kind, name in (*(("Deployment", name) for name in DEPLOYMENTS), ("Job", "migrate")):
        pod = _pod(objects[kind, name])

        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"] == {
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"cpu": "500m", "memory": "512Mi"},
            }, name


def test_running_pods_are_checked_and_not_all_stopped_at_once(objects: Objects) -> None:
    for name in DEPLOYMENTS:
        (container,) = _pod(objects["Deployment", name])["containers"]

        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), name
        assert ("PodDisruptionBudget", name) in objects


def test_pods_that_use_the_database_wait_for_its_tables(objects: Objects, tmp_path: Path) -> None:
    (migrate,) = _pod(objects["Job", "migrate"])["containers"]
    for name in DEPLOYMENTS:
        pod = _pod(objects["Deployment", name])
        (container,) = pod["containers"]
        waiting = pod.get("initContainers", [])

        assert [each["name"] for each in waiting] == ([] if name == "exporter" else ["wait-for-migrations"])
        assert [each for each in waiting if each["image"] != container["image"]] == []
        assert [each for each in waiting if each["envFrom"] != migrate["envFrom"]] == []
        assert [each for each in waiting if each["volumeMounts"] != migrate["volumeMounts"]] == []
    shell, option, script = _pod(objects["Deployment", "worker"])["initContainers"][0]["command"]
    env = {**objects["ConfigMap", "studio"]["data"], "DJANGO_SECRET_KEY": "k", "STUDIO_DATA": str(tmp_path)}
    env["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    once = script.replace("sleep 2", "exit 9")

    waits = subprocess.run([shell, option, once], cwd=ROOT, env={**os.environ, **env}, capture_output=True)
    run(*migrate["command"], env=env)
    run(shell, option, once, env=env)

    assert waits.returncode == 9


def test_probes_ask_for_health(objects: Objects) -> None:
    for name in ("worker", "scheduler"):
        (container,) = _pod(objects["Deployment", name])["containers"]

        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz", name
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez", name
        assert f"--health-port={container['ports'][0]['containerPort']}" in container["command"], name


def test_prometheus_and_nobody_else_reaches_the_exporter(objects: Objects) -> None:
    """The exporter runs with `--open`, so the network policy must name who may connect."""
    (container,) = _pod(objects["Deployment", "exporter"])["containers"]
    policy = objects["NetworkPolicy", "studio-metrics"]["spec"]
    (rule,) = policy["ingress"]
    labels = objects["Deployment", "exporter"]["spec"]["template"]["metadata"]["labels"]

    assert "--open" in container["command"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}]
    assert [port["port"] for port in rule["ports"]] == [container["ports"][0]["containerPort"]]
    assert objects["Service", "exporter"]["spec"]["ports"][0]["port"] == 9876


def test_the_grace_of_the_pods_is_longer_than_that_of_the_workers(objects: Objects) -> None:
    grace_s = float(objects["ConfigMap", "studio"]["data"]["TASKQ_SHUTDOWN_GRACE"])

    assert Settings.from_mapping({}, environ={"TASKQ_SHUTDOWN_GRACE": str(grace_s)}).shutdown_grace == grace_s
    assert _pod(objects["Deployment", "worker"])["terminationGracePeriodSeconds"] > longest_end_s(grace_s)


def test_all_pods_are_under_the_policy(objects: Objects) -> None:
    chosen = objects["NetworkPolicy", "studio"]["spec"]["podSelector"]["matchLabels"].items()

    for kind, name in (*(("Deployment", name) for name in DEPLOYMENTS), ("Job", "migrate")):
        assert chosen <= objects[kind, name]["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("overlay", ["sentinel", "cluster"])
def test_an_overlay_has_a_valid_address_of_redis_and_scales_by_keda(overlay: str) -> None:
    objects = build(f"overlays/{overlay}")
    url = objects["Secret", "studio"]["stringData"]["TASKQ_URL"]

    assert Settings.from_mapping({"URL": url}).url == url
    assert ("ScaledObject", "worker") in objects
    assert ("HorizontalPodAutoscaler", "worker") not in objects  # two that scale one would fight
    assert ("HorizontalPodAutoscaler", "web") in objects


def test_the_base_has_a_valid_address_of_redis_and_scales_by_cpu(objects: Objects) -> None:
    url = objects["Secret", "studio"]["stringData"]["TASKQ_URL"]
    scaler = objects["HorizontalPodAutoscaler", "worker"]["spec"]

    assert Settings.from_mapping({"URL": url}).url == url
    assert scaler["scaleTargetRef"]["name"] == "worker"
    assert scaler["metrics"][0]["resource"]["name"] == "cpu"
