"""The OpenTelemetry providers that taskq uses in this process.

Without an SDK, taskq records no span and no metric. Each enqueue checks again, so an SDK may be configured at any time.
"""

import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError
from typing import TypeVar

from opentelemetry import metrics, trace

from taskq_core.telemetry import names
from taskq_core.version import installed_version

P = TypeVar("P")

INSTRUMENTATION_NAME = "taskq_core"
"""Name under which an SDK sees taskq's spans and metrics."""
INSTRUMENTATION_ENTRY = "taskq"
"""Name that disables taskq's spans and metrics in `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`."""


def instrumentation_version() -> str:
    """Return the version of the installed distribution, "" if taskq runs from a source tree."""
    try:
        return installed_version()
    except PackageNotFoundError:
        return ""


def _quick(getter: Callable[[], P], variable: str, env: str) -> Callable[[], P | None]:
    """Return a fast function that returns the current OpenTelemetry provider, or None if none is configured.

    While no provider is configured, OpenTelemetry's getters read the environment, which takes 1 us. Because each task
    calls the function, it reads OpenTelemetry's module variable instead. If that variable does not exist in a later
    version, OpenTelemetry's getter is returned.
    """
    home: dict[str, P | None] = getattr(getter, "__globals__", {})
    # If an environment variable names a provider, only OpenTelemetry's getter can load the provider.
    if variable not in home or env in os.environ:
        return getter
    return partial(home.get, variable)


_global_tracer_provider = _quick(trace.get_tracer_provider, "_TRACER_PROVIDER", "OTEL_PYTHON_TRACER_PROVIDER")
_global_meter_provider = _quick(metrics.get_meter_provider, "_METER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER")


class Switch:
    """Selects the OpenTelemetry providers that taskq uses: the global providers, other providers, or none. Thread-safe.

    OpenTelemetry's launcher changes it through `taskq_core.telemetry.instrumentor`.

    Attributes:
        tracer_provider: Returns the provider of spans or None.
        meter_provider: Returns the provider of metrics or None.
    """

    def __init__(self) -> None:
        self.tracer_provider: Callable[[], trace.TracerProvider | None]
        self.meter_provider: Callable[[], metrics.MeterProvider | None]
        disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
        if INSTRUMENTATION_ENTRY in [name.strip() for name in disabled]:
            self.turn_off()
        else:
            self.turn_on()

    def turn_on(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        """Use these OpenTelemetry providers; None selects the global provider."""
        self.tracer_provider = (lambda: tracer_provider) if tracer_provider else _global_tracer_provider
        self.meter_provider = (lambda: meter_provider) if meter_provider else _global_meter_provider

    def turn_off(self) -> None:
        """Stop recording spans and metrics."""
        self.tracer_provider = self.meter_provider = lambda: None


switch = Switch()
"""The selection of OpenTelemetry providers for this process."""


def is_sdk(provider: object) -> bool:
    """Return whether a provider records anything. None and the providers of the API itself (proxy, no-op) do not."""
    return provider is not None and not type(provider).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")
    )


def tracer_of(provider: trace.TracerProvider | None) -> trace.Tracer | None:
    """Return a provider's tracer for taskq, None if it records nothing."""
    if provider is None or not is_sdk(provider):
        return None
    tracer = provider.get_tracer(INSTRUMENTATION_NAME, instrumentation_version(), names.schema_url())
    # If OTEL_SDK_DISABLED is set, the SDK returns a tracer that records nothing.
    return None if isinstance(tracer, trace.NoOpTracer) else tracer


def meter_of(provider: metrics.MeterProvider | None) -> metrics.Meter | None:
    """Return a provider's meter for taskq, None if it records nothing."""
    if provider is None or not is_sdk(provider):
        return None
    meter = provider.get_meter(INSTRUMENTATION_NAME, instrumentation_version(), names.schema_url())
    return None if isinstance(meter, metrics.NoOpMeter) else meter
