"""`docker-compose.yml` and what it mounts. No container is started here: there may be nothing that could."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskq_core.settings import Settings, seconds
from tests.docs.deploy.tools import DEPLOY, ROOT, longest_end_s, run, tool

KEY = "made-for-this-test"
OURS = ("web", "api", "worker", "scheduler", "exporter", "migrate")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The whole configuration as docker-compose reads it."""
    found: dict[str, Any] = json.loads(
        run(
            tool("docker-compose"),
            *("--profile", "asynqmon", "config", "--format", "json"),
            env={"DJANGO_SECRET_KEY": KEY},
        )
    )
    return found


def test_all_parts_are_there(config: dict[str, Any]) -> None:
    services = config["services"]

    others = ("redis", "collector", "jaeger", "prometheus", "grafana", "asynqmon")
    assert services.keys() == {*OURS, *others}
    assert services["worker"]["deploy"]["replicas"] == 3
    assert "noeviction" in services["redis"]["command"]
    assert "everysec" in services["redis"]["command"]
    assert "--maxmemory" in services["redis"]["command"]


def test_the_secret_key_must_be_given() -> None:
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SECRET_KEY"}

    done = subprocess.run([tool("docker-compose"), "config"], cwd=ROOT, env=env, capture_output=True, text=True)

    assert done.returncode != 0
    assert "DJANGO_SECRET_KEY" in done.stderr


VISIT = """
import django
django.setup()
from django.conf import settings
from django.test import Client
(settings.MEDIA_ROOT / "photos").mkdir(parents=True)
(settings.MEDIA_ROOT / "photos" / "1.jpg").write_bytes(b"photo")
visitor = Client(headers={"host": "127.0.0.1"})
print(settings.DEBUG, settings.SECRET_KEY)
for path in ("/", "/admin/login/", "/static/admin/css/base.css", "/media/photos/1.jpg"):
    print(path, visitor.get(path).status_code)
"""


def test_the_site_works_with_the_environment_of_its_container(config: dict[str, Any], tmp_path: Path) -> None:
    """It runs without DEBUG, and sends its pages, style sheets and photos."""
    env = {**config["services"]["web"]["environment"], "STUDIO_DATA": str(tmp_path)}
    env |= {"DJANGO_SETTINGS_MODULE": "example_project.settings", "OTEL_SDK_DISABLED": "true"}
    run(sys.executable, "example_project/manage.py", "migrate", env=env)

    told = run(sys.executable, "-c", VISIT, env=env).splitlines()

    assert told[0] == f"False {KEY}"
    assert [line.split()[1] for line in told[1:]] == ["200"] * 4


def test_nothing_is_reached_from_elsewhere(config: dict[str, Any]) -> None:
    published = [port for service in config["services"].values() for port in service.get("ports", ())]

    assert len(published) == 7
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_our_containers_write_nowhere_but_where_they_must(config: dict[str, Any]) -> None:
    for name in OURS:
        service = config["services"][name]

        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert [mount["target"] for mount in service["volumes"]] == ["/data"], name
        assert "/tmp" in str(service["tmpfs"]), name
        assert isinstance(service["command"], list), name  # no shell between signals and the process


def test_a_worker_has_the_time_it_needs_to_stop(config: dict[str, Any]) -> None:
    grace = config["services"]["worker"]["stop_grace_period"]
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", grace)
    assert parts is not None

    grace_s = int(parts[1] or 0) * 60 + int(parts[2] or 0)
    assert grace_s > longest_end_s(seconds("SHUTDOWN_GRACE", Settings().shutdown_grace))


def test_health_means_an_answer(config: dict[str, Any]) -> None:
    for name in ("web", "api", "worker", "scheduler", "exporter", "redis"):
        test = config["services"][name]["healthcheck"]["test"]

        assert test[0] == "CMD", name
        if test[1] == "python":
            compile(test[3], name, "exec")


def test_the_options_of_our_commands_are_known(config: dict[str, Any]) -> None:
    for name in ("worker", "scheduler", "exporter"):
        program, *words = config["services"][name]["command"][1:]
        command = [word for word in words if not word.startswith("-")]
        options = [word.partition("=")[0] for word in words if word.startswith("-")]

        told = run(sys.executable, program, *command, "--help")

        assert not [option for option in options if option not in told], name


def test_what_is_mounted_is_there(config: dict[str, Any]) -> None:
    mounts = [
        Path(mount["source"])
        for service in config["services"].values()
        for mount in service.get("volumes", ())
        if mount["type"] == "bind"
    ]

    assert len(mounts) == 4
    assert all(path.exists() and path.is_relative_to(DEPLOY) for path in mounts)


def test_the_collector_sends_what_it_receives_to_who_is_there(config: dict[str, Any]) -> None:
    collector = yaml.safe_load((DEPLOY / "collector.yaml").read_text(encoding="utf-8"))

    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= collector[kind].keys()
    hosts = {re.sub(r"^https?://|[:/].*$", "", each["endpoint"]) for each in collector["exporters"].values()}
    assert hosts <= config["services"].keys()
    ours = {config["services"][name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] for name in OURS}
    assert ours == {"http://collector:4318"}
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")


def test_the_image_runs_as_nobody_special_and_hands_on_signals() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    (command,) = [line.removeprefix("CMD ") for line in lines if line.startswith("CMD")]

    assert int(user) > 0
    assert isinstance(json.loads(command), list)
    assert len([line for line in lines if line.startswith("FROM")]) == 2
    copied = [shlex.split(line)[-2] for line in lines if line.startswith("COPY") and "--from" not in line]
    assert all((ROOT / name).exists() for name in copied)


PINNED = r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}"


def test_images_are_pinned_by_digest(config: dict[str, Any]) -> None:
    """Only Asynq's web page, which starts on request, has an image without a known digest."""
    (python,) = re.findall(r"^ARG PYTHON=(.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    images = {name: service["image"] for name, service in config["services"].items() if name not in OURS}

    assert re.fullmatch(PINNED, python)
    assert {name for name, image in images.items() if not re.fullmatch(PINNED, image)} == {"asynqmon"}


def test_the_image_contains_only_locked_packages() -> None:
    installs = re.findall(r"pip (?:install|wheel) .*", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lock = (DEPLOY / "image/requirements.txt").read_text(encoding="utf-8")
    packages = re.findall(r"^\S+==\S+.*(?:\n +--hash=sha256:[0-9a-f]{64}.*)+", lock, re.MULTILINE)

    assert len(packages) == lock.count("==") > 40
    assert len(installs) == 4
    assert all("--no-deps" in line for line in installs)
    assert [line for line in installs if "requirements.txt" in line and "--require-hashes" not in line] == []


def test_the_guides_give_a_worker_the_time_it_needs_to_stop() -> None:
    """The test checks the times in units and in the text, and the rule that they follow."""
    given = [
        (page.name, int(number))
        for page in (ROOT / "docs/how-to").glob("*.md")
        for number in re.findall(
            r"(?:TimeoutStopSec=|stop_grace_period: |terminationGracePeriodSeconds: |stopwaitsecs=)(\d+)",
            page.read_text(encoding="utf-8"),
        )
    ]

    assert len(given) >= 5
    assert not [each for each in given if each[1] <= longest_end_s(30)]
    assert longest_end_s(100) <= 100 + 25
    assert longest_end_s(100, has_lifespans=True) <= 2 * 100 + 25
