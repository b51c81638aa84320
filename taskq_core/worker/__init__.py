"""A running worker: it fetches tasks, runs them, settles them, and keeps its queues in order.

Each service is a module with a class of its name: `fetcher`, `executor`, `settler`, `keepalive`, `forwarder`,
`recoverer`, `janitor`, `subscriber`, `waker`.
"""

from taskq_core.worker.config import WorkerConfig
from taskq_core.worker.listener import WorkerListener
from taskq_core.worker.worker import Worker

__all__ = ["Worker", "WorkerConfig", "WorkerListener"]
