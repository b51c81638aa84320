import pytest
from opentelemetry import metrics
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from taskq_core.telemetry import providers


@pytest.mark.usefixtures("clean_globals")
def test_only_providers_of_an_sdk_count(provider: TracerProvider, meter_provider: MeterProvider) -> None:
    real = (provider, meter_provider)
    hollow = (None, NoOpTracerProvider(), ProxyTracerProvider(), NoOpMeterProvider(), metrics.get_meter_provider())

    assert all(map(providers.is_sdk, real))
    assert not any(map(providers.is_sdk, hollow))


def test_the_public_getters_are_the_fallback_for_the_global_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later API may keep it elsewhere, and the first call loads a provider that the environment names."""
    getter = metrics.get_meter_provider
    monkeypatch.setenv("OTEL_PYTHON_METER_PROVIDER", "sdk_meter_provider")

    assert providers._quick(getter, "_NO_SUCH_VARIABLE", "NO_SUCH_ENV") is getter
    assert providers._quick(getter, "_METER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER") is getter
