"""Run a scheduler that enqueues periodic tasks when they are due.

`scheduler` starts and stops it. `ticker` enqueues the tasks, and explains why any number of schedulers enqueue each
firing once.
"""

from taskq_core.scheduler.config import SchedulerConfig
from taskq_core.scheduler.listener import SchedulerListener
from taskq_core.scheduler.scheduler import Scheduler, run_scheduler

__all__ = ["Scheduler", "SchedulerConfig", "SchedulerListener", "run_scheduler"]
