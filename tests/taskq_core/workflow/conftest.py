"""Workers and servers, as the tests of the worker have them."""

from tests.taskq_core.worker.conftest import app, queue, start, start_process

__all__ = ["app", "queue", "start", "start_process"]
