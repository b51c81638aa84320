"""What OpenTelemetry's launcher finds: `opentelemetry-instrument taskq worker shop.queue:taskq` needs no code.

taskq writes its spans and metrics itself, to whatever providers the process has. So there is nothing to patch, and
nothing can be instrumented twice: the instrumentor names the providers, or switches both off. It needs the package
`opentelemetry-instrumentation`, and is imported by the launcher only.
"""

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # it has no types

from taskq_core.telemetry.providers import switch


class TaskQInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # the package has no types
    """Says which providers taskq uses in this process, and whether any.

    `instrument(tracer_provider=..., meter_provider=...)` takes these instead of the global ones; `uninstrument()` ends
    spans and metrics until the next `instrument()`.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: taskq is installed with this class."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        switch.turn_on(kwargs.get("tracer_provider"), kwargs.get("meter_provider"))

    def _uninstrument(self, **kwargs: Any) -> None:
        switch.turn_off()
