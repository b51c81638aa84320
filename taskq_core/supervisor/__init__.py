"""Run a worker as several processes.

The module `supervisor` has the parent process, and `Member` is the side of a worker process. `SupervisorConfig` sets
how many processes run, and when each is replaced.
"""

from taskq_core.supervisor.config import Limits, SupervisorConfig, process_count
from taskq_core.supervisor.cores import usable_cores
from taskq_core.supervisor.member import Member

__all__ = ["Limits", "Member", "SupervisorConfig", "process_count", "usable_cores"]
