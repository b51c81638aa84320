"""The manifests, built by kustomize and checked against the schemas of Kubernetes. No cluster is asked."""

import json
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from taskq_core.settings import Settings
from tests.deploy.tools import DEPLOY, longest_end_s, run, tool

Objects = dict[tuple[str, str], dict[str, Any]]
VERSION = "1.31"


def build(folder: str) -> Objects:
    text = run(tool("kustomize"), "build", str(DEPLOY / "kubernetes" / folder))
    objects = [each for each in yaml.safe_load_all(text) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.fixture(scope="module", params=["base", "overlays/sentinel", "overlays/cluster"])
def objects(request: pytest.FixtureRequest) -> Objects:
    return build(request.param)


def test_every_object_fits_its_schema(objects: Objects) -> None:
    for (kind, name), each in objects.items():
        if kind == "ScaledObject":  # of KEDA, not of Kubernetes
            schema = json.loads((DEPLOY.parent / "tests/deploy/scaledobject.schema.json").read_text(encoding="utf-8"))
            jsonschema.validate(each, schema)
        else:
            kubernetes_validate.validate(each, VERSION, strict=True)
        assert name


def test_a_wrong_one_would_be_noticed(objects: Objects) -> None:
    worker = json.loads(json.dumps(objects["Deployment", "worker"]))
    worker["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 1

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(worker, VERSION, strict=True)


def _pod(deployment: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


DEPLOYMENTS = ["web", "api", "worker", "scheduler", "exporter"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_have_no_more_rights_than_they_need(objects: Objects, name: str) -> None:
    pod = _pod(objects["Deployment", name])
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    }
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert ("PodDisruptionBudget", name) in objects


@pytest.mark.parametrize("name", ["worker", "scheduler"])
def test_probes_ask_what_means_work(objects: Objects, name: str) -> None:
    (container,) = _pod(objects["Deployment", name])["containers"]

    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert f"--health-port={container['ports'][0]['containerPort']}" in container["command"]


def test_prometheus_and_nobody_else_reaches_the_exporter(objects: Objects) -> None:
    """It is open to whoever does, so the policy has to say who."""
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

    for name in DEPLOYMENTS:
        assert chosen <= objects["Deployment", name]["spec"]["template"]["metadata"]["labels"].items()


def test_the_address_of_redis_is_one_that_is_understood(objects: Objects) -> None:
    url = objects["Secret", "studio"]["stringData"]["TASKQ_URL"]

    assert Settings.from_mapping({"URL": url}).url == url


@pytest.mark.parametrize("overlay", ["sentinel", "cluster"])
def test_keda_takes_the_place_of_scaling_by_cpu(overlay: str) -> None:
    objects = build(f"overlays/{overlay}")

    assert ("ScaledObject", "worker") in objects
    assert ("HorizontalPodAutoscaler", "worker") not in objects  # two that scale one would fight
    assert ("HorizontalPodAutoscaler", "web") in objects


def test_without_keda_workers_scale_by_cpu() -> None:
    scaler = build("base")["HorizontalPodAutoscaler", "worker"]["spec"]

    assert scaler["scaleTargetRef"]["name"] == "worker"
    assert scaler["metrics"][0]["resource"]["name"] == "cpu"
