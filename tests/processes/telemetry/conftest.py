"""Use the fixtures of tests/taskq_core/telemetry."""

from tests.taskq_core.telemetry.conftest import exporter, provider
from tests.taskq_core.telemetry.test_configure import receiver

__all__ = ["exporter", "provider", "receiver"]
