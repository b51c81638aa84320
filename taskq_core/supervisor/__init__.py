"""Run a worker as several processes.

`Supervisor` is the parent process, and `Member` the side of a worker process. `SupervisorConfig` sets how many
processes run, and when each is replaced.
"""

from taskq_core.supervisor.config import Limits, SupervisorConfig, process_count
from taskq_core.supervisor.cores import usable_cores
from taskq_core.supervisor.member import Member
from taskq_core.supervisor.supervisor import Supervisor

__all__ = ["Limits", "Member", "Supervisor", "SupervisorConfig", "process_count", "usable_cores"]
