"""Test that an environment variable disables instrumentation."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("disabled", "expected"), [("django, taskq", "False"), ("django", "True"), ("", "True")])
def test_the_environment_disables_instrumentation(disabled: str, expected: str) -> None:
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from taskq_core.telemetry import Tracing
trace.set_tracer_provider(TracerProvider())
print(Tracing().is_active)
"""
    env = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disabled}

    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == expected
