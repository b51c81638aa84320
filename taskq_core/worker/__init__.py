"""Run a worker: fetch tasks, run them, settle them, and repair its queues.

Each service is a module with a class of the same name: `fetcher`, `executor`, `settler`, `keepalive`, `forwarder`,
`recoverer`, `janitor`, `subscriber`, `waker`.
"""

from taskq_core.worker.config import WorkerConfig
from taskq_core.worker.listener import WorkerListener
from taskq_core.worker.worker import Worker

__all__ = ["Worker", "WorkerConfig", "WorkerListener"]
