"""The worker and server fixtures of the worker's tests."""

from tests.taskq_core.worker.conftest import app, queue, start, start_process

__all__ = ["app", "queue", "start", "start_process"]
