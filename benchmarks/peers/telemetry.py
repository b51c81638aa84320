"""Settings with traces and metrics for the peers that have an instrumentation, and the OpenTelemetry SDK for them.

The adapters import this module, so it imports OpenTelemetry only if the setting asks for it.
"""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.settings import Peer, Setting
from benchmarks.peers.tasks import SETTING

_SDK = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
_INSTRUMENTATIONS = {
    "taskq": (),
    # Releases of OpenTelemetry's own instrumentations are betas. Without a number, pip would not install them.
    "celery": ("opentelemetry-instrumentation-celery>=0.66b0",),
    "dramatiq": ("opentelemetry-instrumentor-dramatiq",),
    "taskiq": ("opentelemetry-instrumentation>=0.66b0", "psutil"),
    "docket": (),  # has it inside
}
_DOCKET = Peer(
    name="docket",
    packages=("pydocket", "redis[hiredis]"),
    distribution="pydocket",
    page="https://docket.lol/",
    settings=(
        Setting(
            name="50 coroutines",
            group="50",
            command="-m docket worker --url {url} --tasks {adapter}:FUNCTIONS --concurrency 50 --logging-level ERROR",
            values={"concurrency": 50},
        ),
    ),
)


def instrumented_peers() -> Sequence[Peer]:
    """Return the peers that have an instrumentation, each with its first setting and packages for telemetry."""
    peers = [peer for peer in (*PEERS, _DOCKET) if peer.name in _INSTRUMENTATIONS]
    return [
        replace(
            peer,
            packages=(*peer.packages, *_SDK, *_INSTRUMENTATIONS[peer.name]) if peer.packages else (),
            settings=(replace(peer.settings[0], enqueues=False),),
        )
        for peer in peers
    ]


def with_telemetry(setting: Setting, collector: str) -> Setting:
    """Return a setting with traces of all tasks and with metrics, exported to the collector at a URL."""
    environment = {
        **setting.environment,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_LOGS_EXPORTER": "none",  # no peer exports the lines of its log
        "OTEL_BSP_SCHEDULE_DELAY": "200",  # ms, so that the last spans do not wait
        "OTEL_BSP_MAX_QUEUE_SIZE": str(1 << 20),  # all spans have room and are exported
    }
    return replace(setting, values={**setting.values, "telemetry": True}, environment=environment)


def configured() -> bool:
    """Return whether the setting asks for telemetry. If so, install the SDK as OpenTelemetry's guide shows it."""
    if not SETTING.get("telemetry"):
        return False
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    return True
