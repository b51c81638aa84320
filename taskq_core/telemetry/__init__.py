"""PLACEHOLDER by the lead so that the package imports; the telemetry helper replaces this file.

The lead's client needs from here: Tracing(relation=, baggage=, server=(host, port)|None) with .baggage and
.start_producer(queue=, task_type=, task_id=) -> ProducerSpan | None (None when no SDK is configured), a ProducerSpan with
.context (an opentelemetry Context) and .end(error: BaseException | None = None); inject(headers, context, baggage=); wrap.
"""
from taskq_core.telemetry.envelope import unwrap, wrap
from taskq_core.telemetry.propagation import extract, inject


class ProducerSpan:
    context = None

    def end(self, error=None):
        pass


class Tracing:
    def __init__(self, *, relation="parent", baggage=True, server=None):
        self.baggage = baggage

    def start_producer(self, **facts):
        return None
