"""Set up traces in the studio's processes. Each process calls `trace_process` once, at its start."""

import os

from taskq_core.telemetry import configure


def trace_process(service_name: str) -> bool:
    """Export the traces of this process to `OTEL_EXPORTER_OTLP_ENDPOINT`.

    Args:
        service_name: Name of the process in the traces.

    Returns:
        False if the variable is not set. Then the process exports no traces.
    """
    if "OTEL_EXPORTER_OTLP_ENDPOINT" not in os.environ:
        return False
    configure(service_name=service_name)
    return True
