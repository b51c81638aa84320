"""Test that the project's queue application follows the settings and finds the tasks."""

from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from taskq_core import ConfigurationError
from taskq_django import client, discovery, task, taskq
from taskq_django.conf import read_settings
from taskq_django.discovery import autodiscover
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.shop.tasks import greet


def test_tasks_of_installed_apps_are_found() -> None:
    assert {"shop:greet", "shop:restock"} <= set(taskq.tasks)


def test_autodiscover_names_modules(settings: Any) -> None:
    """A name with a dot is imported unchanged. A missing module raises an error."""
    settings.TASKQ = {"AUTODISCOVER": ["tests.taskq_django.shop.nowhere"]}

    with pytest.raises(ConfigurationError, match=r"TASKQ\['AUTODISCOVER'\] names 'tests.taskq_django.shop.nowhere'"):
        autodiscover()


def test_a_missing_module_of_include_is_an_error_that_names_the_setting(settings: Any) -> None:
    settings.TASKQ = {"INCLUDE": ["tests.taskq_django.nope.jobs"]}

    with pytest.raises(ConfigurationError) as refused:
        autodiscover()

    assert str(refused.value) == (
        "TASKQ['INCLUDE'] names 'tests.taskq_django.nope.jobs', but there is no module 'tests.taskq_django.nope'"
    )


def test_invalid_settings_are_left_to_the_system_check(settings: Any) -> None:
    settings.TASKQ = {"INCLUDE": 5}

    autodiscover()


@rows(("wanted", "looked_for"), [(True, [("tasks",)]), (["jobs", "queued"], [("jobs", "queued")]), (False, [])])
def test_autodiscover_looks_for_the_configured_modules_in_every_app(
    settings: Any, monkeypatch: pytest.MonkeyPatch, wanted: object, looked_for: list[tuple[str, ...]]
) -> None:
    """False disables autodiscovery."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(discovery, "autodiscover_modules", lambda *names: calls.append(names))
    settings.TASKQ = {"AUTODISCOVER": wanted}

    autodiscover()

    assert calls == looked_for


def test_override_settings_takes_effect_at_once() -> None:
    """Tasks that are already registered stay registered and use the new defaults."""
    with override_settings(TASKQ={"CONCURRENCY": 7, "DEFAULTS": {"queue": "overridden"}}):
        inside = (taskq.settings.concurrency, greet.options.queue)

    assert inside == (7, "overridden")
    assert taskq.settings.concurrency == 10
    assert greet.options.queue == "default"
    assert "shop:greet" in taskq.tasks


@pytest.mark.redis
def test_the_imported_client_follows_the_settings(redis: RedisServer, settings: Any) -> None:
    client.enqueue(greet.s("Ada"))
    settings.TASKQ = {**settings.TASKQ, "PREFIX": "elsewhere"}
    client.enqueue(greet.s("Grace"))

    assert redis.client.llen("asynq:{default}:pending") == 1
    assert redis.client.llen("elsewhere:{default}:pending") == 1


@pytest.mark.redis
@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ({}, ["create default", "create default", "send default"]),
        ({"CREATE_SPANS": True}, ["create default", "create default", "send default"]),
        ({"CREATE_SPANS": False}, ["send default"]),
    ],
)
def test_the_settings_say_whether_each_task_of_a_batch_has_a_span(
    redis: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch, setting: dict[str, bool], names: list[str]
) -> None:
    """Without a span for each task, all tasks carry the span of the batch."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    settings.TASKQ = {**settings.TASKQ, "TRACE": setting}

    handles = client.enqueue_many(greet.s(name) for name in ("Ada", "Grace"))

    spans = exporter.get_finished_spans()
    carriers = {handle.refresh().headers["traceparent"].split("-")[2] for handle in handles}
    assert sorted(span.name for span in spans) == names
    assert carriers == {format(span.context.span_id, "016x") for span in spans if span.kind is SpanKind.PRODUCER}


def test_the_environment_overrides_the_dict(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TASKQ = {"CONCURRENCY": 7, "QUEUES": {"a": 1}}
    monkeypatch.setenv("TASKQ_CONCURRENCY", "9")

    assert read_settings().concurrency == 9
    assert dict(read_settings().queues) == {"a": 1}


@pytest.mark.parametrize("folder", ["/srv/shop", Path("/srv/a shop?@50%")])
def test_an_embedded_server_keeps_its_data_below_base_dir(settings: Any, folder: Path | str) -> None:
    settings.BASE_DIR = folder
    settings.TASKQ = {"URL": "embedded://"}

    assert taskq.runtime.endpoint.address == f"embedded://{folder}/.taskq"


def test_a_bad_setting_is_reported_at_the_first_use(settings: Any) -> None:
    settings.TASKQ = {"CONCURENCY": 7}

    with pytest.raises(ConfigurationError, match="did you mean 'CONCURRENCY'"):
        greet.delay("Ada")
    with pytest.raises(ConfigurationError, match="did you mean 'CONCURRENCY'"):
        _ = taskq.settings


def test_a_task_can_be_defined_while_the_settings_are_invalid(settings: Any) -> None:
    """Otherwise importing a tasks.py would fail before the system check could report the problem."""
    settings.TASKQ = {"CONCURENCY": 7}

    @task(name="shop:made-with-bad-settings")
    def made() -> str:
        return "made"

    assert made() == "made"
