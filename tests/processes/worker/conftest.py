"""Workers and servers, as the tests of the worker have them."""

from tests.taskq_core.worker.conftest import app, exchanges, queue, start, start_process

__all__ = ["app", "exchanges", "queue", "start", "start_process"]
