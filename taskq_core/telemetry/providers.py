"""Tell cheaply whether an OpenTelemetry SDK is configured, at any time of the process.

Without an SDK, taskq runs no span or metric code at all, so the question is asked on every enqueue and has to cost
next to nothing. The API's own getters read the environment as long as nothing is configured (0.8 us); looking at the
variable they fill costs a tenth. If a later API keeps its provider elsewhere, the getters are called instead.
"""

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar, cast

from opentelemetry import metrics, trace

ProviderT = TypeVar("ProviderT")

INSTRUMENTATION_NAME = "taskq_core"
"""Name under which an SDK sees taskq's spans and metrics."""
INSTRUMENTATION_ENTRY = "taskq"
"""Name by which `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` switches them off."""

_NOT_THERE: Any = object()


def instrumentation_version() -> str:
    """Version of the installed distribution, or "" when it runs from a bare source tree."""
    try:
        return version("taskq-asynq")
    except PackageNotFoundError:
        return ""


def _lookup(getter: Callable[[], ProviderT], variable: str, env: str) -> Callable[[], ProviderT | None]:
    """A function that returns the provider that is set now, or None while none is."""
    home = cast("dict[str, Any]", getattr(getter, "__globals__", {}))
    if (
        variable not in home or env in os.environ
    ):  # with the variable set, the first call of the getter loads the provider
        return getter

    def look() -> ProviderT | None:
        provider: ProviderT | None = home.get(variable, _NOT_THERE)
        return getter() if provider is _NOT_THERE else provider

    return look


class Switch:
    """Which providers this process uses, and whether any. Any thread may turn it.

    By default the global ones, whenever they are set. OpenTelemetry's launcher turns it through
    `taskq_core.telemetry.instrumentor`.
    """

    def __init__(self) -> None:
        # Attributes, not methods: each task asks.
        self.tracer_provider: Callable[[], trace.TracerProvider | None] = _global_tracer_provider
        """Returns the provider of spans in force; None for none."""
        self.meter_provider: Callable[[], metrics.MeterProvider | None] = _global_meter_provider
        """Returns the provider of metrics in force; None for none."""
        if _is_disabled_by_environment():
            self.turn_off()

    def turn_on(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        """Use these providers, or for None the global one."""
        self.tracer_provider = (lambda: tracer_provider) if tracer_provider else _global_tracer_provider
        self.meter_provider = (lambda: meter_provider) if meter_provider else _global_meter_provider

    def turn_off(self) -> None:
        """Write no span and no metric from now on."""
        self.tracer_provider = self.meter_provider = _nothing


def _nothing() -> None:
    return None


def _is_disabled_by_environment() -> bool:
    names = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    return INSTRUMENTATION_ENTRY in [name.strip() for name in names.split(",")]


_global_tracer_provider: Callable[[], trace.TracerProvider | None] = _lookup(
    trace.get_tracer_provider, "_TRACER_PROVIDER", "OTEL_PYTHON_TRACER_PROVIDER"
)
_global_meter_provider: Callable[[], metrics.MeterProvider | None] = _lookup(
    metrics.get_meter_provider, "_METER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"
)
switch = Switch()
"""That of this process."""


def global_tracer_provider() -> trace.TracerProvider | None:
    """Return the provider of spans that is in force now; None while there is none."""
    return switch.tracer_provider()


def global_meter_provider() -> metrics.MeterProvider | None:
    """Return the provider of metrics that is in force now; None while there is none."""
    return switch.meter_provider()


def is_sdk(provider: object) -> bool:
    """Whether a provider is a real one; those that the API brings itself (proxy, no-op) and None record nothing."""
    return provider is not None and not type(provider).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")
    )
