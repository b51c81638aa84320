"""Find problems of Redis and its queues, and say what to do about each.

`read_facts` reads, and `diagnose` decides: the rules are pure functions from facts to findings. Neither changes
anything. `plan` lists the possible repairs, a `Repairer` makes them, and `for_a_person` lists what it cannot repair.
`probe_queues` only checks whether tasks can be enqueued and run.
"""

from taskq_core.doctor.facts import Facts, NodeFacts
from taskq_core.doctor.findings import Finding, Level
from taskq_core.doctor.probing import probe_port, probe_queues, within
from taskq_core.doctor.reading import read_facts, read_nodes
from taskq_core.doctor.repair import Repair, Repairer, for_a_person, plan
from taskq_core.doctor.rules import diagnose, diagnose_nodes, unreachable

__all__ = [
    "Facts",
    "Finding",
    "Level",
    "NodeFacts",
    "Repair",
    "Repairer",
    "diagnose",
    "diagnose_nodes",
    "for_a_person",
    "plan",
    "probe_port",
    "probe_queues",
    "read_facts",
    "read_nodes",
    "unreachable",
    "within",
]
