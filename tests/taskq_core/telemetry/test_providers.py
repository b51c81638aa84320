from collections.abc import Callable

import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from taskq_core.telemetry import providers


@pytest.mark.usefixtures("clean_globals")
def test_the_provider_in_force_is_seen_as_soon_as_it_is_set(
    provider: TracerProvider, meter_provider: MeterProvider
) -> None:
    before = (providers.global_tracer_provider(), providers.global_meter_provider())

    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(meter_provider)

    assert before == (None, None)
    assert (providers.global_tracer_provider(), providers.global_meter_provider()) == (provider, meter_provider)


@pytest.mark.usefixtures("clean_globals")
def test_only_what_an_sdk_brings_counts(provider: TracerProvider, meter_provider: MeterProvider) -> None:
    real = (provider, meter_provider)
    hollow = (None, NoOpTracerProvider(), ProxyTracerProvider(), NoOpMeterProvider(), metrics.get_meter_provider())

    assert all(map(providers.is_sdk, real))
    assert not any(map(providers.is_sdk, hollow))


def test_an_api_that_keeps_its_provider_elsewhere_is_asked_through_its_getter() -> None:
    def getter() -> str:
        return "asked"

    look: Callable[[], str | None] = providers._lookup(getter, "_NO_SUCH_VARIABLE", "NO_SUCH_ENV")

    assert look() == "asked"


def test_a_provider_named_by_the_environment_is_loaded_by_the_getter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider")

    look = providers._lookup(trace.get_tracer_provider, "_TRACER_PROVIDER", "OTEL_PYTHON_TRACER_PROVIDER")

    assert look is trace.get_tracer_provider
