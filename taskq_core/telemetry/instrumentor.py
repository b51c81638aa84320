"""The entry point for OpenTelemetry's launcher, for example `opentelemetry-instrument taskq worker shop.queue:taskq`.

taskq creates its spans and metrics itself, so the instrumentor patches nothing. It only selects the providers, or
switches spans and metrics off. It needs the package `opentelemetry-instrumentation`, and only the launcher imports it.
"""

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # it has no types

from taskq_core.telemetry.providers import switch


class TaskQInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # the package has no types
    """Selects the OpenTelemetry providers that taskq uses in this process.

    `instrument(tracer_provider=..., meter_provider=...)` replaces the global providers. `uninstrument()` switches spans
    and metrics off until the next `instrument()`.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return no dependencies, because taskq is installed together with this class."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        switch.turn_on(kwargs.get("tracer_provider"), kwargs.get("meter_provider"))

    def _uninstrument(self, **kwargs: Any) -> None:
        switch.turn_off()
