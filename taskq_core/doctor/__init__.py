"""Look for what is wrong with a broker and its queues, and say what to do about it.

`read_facts` asks, `diagnose` judges: the rules are pure functions from facts to findings. Looking changes nothing.
`plan` says what could be repaired, a `Repairer` does it, and `for_a_person` tells what is left to somebody who knows.
`probe_queues` is the quick question whether tasks can be worked on at all.
"""

from taskq_core.doctor.bounded import within
from taskq_core.doctor.facts import Facts, NodeFacts
from taskq_core.doctor.findings import Finding, Level
from taskq_core.doctor.node_rules import check_eviction
from taskq_core.doctor.probing import probe_port, probe_queues
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
    "check_eviction",
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
