"""Look for what is wrong with a broker and its queues, and say what to do about it.

`read_facts` asks, `diagnose` judges: the rules are pure functions from facts to findings. Looking changes nothing.
"""

from taskq_core.doctor.facts import Damage, Facts, NodeFacts, QueueFacts, Refusal, WrongType
from taskq_core.doctor.reading import read_facts
from taskq_core.doctor.rules import Finding, Level, diagnose, unreachable

__all__ = [
    "Damage",
    "Facts",
    "Finding",
    "Level",
    "NodeFacts",
    "QueueFacts",
    "Refusal",
    "WrongType",
    "diagnose",
    "read_facts",
    "unreachable",
]
