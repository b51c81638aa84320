"""A worker of several processes: their parent, and what each process does towards it.

`Supervisor` is the parent; `Member` is a process that has one. `SupervisorConfig` says how many there are and when each
is replaced.
"""

from taskq_core.supervisor.config import Limits, SupervisorConfig, process_count
from taskq_core.supervisor.cores import usable_cores
from taskq_core.supervisor.member import Member
from taskq_core.supervisor.supervisor import Supervisor

__all__ = ["Limits", "Member", "Supervisor", "SupervisorConfig", "process_count", "usable_cores"]
