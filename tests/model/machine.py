"""Every operation of clients, workers, services and people, in any order, beside the model.

Each rule asks the store and the model the same thing and compares the answers; after each rule the whole store has to
equal the model, which `world.observe` reads only if it does not contradict itself. Time stands still but for `advance`.
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from taskq_core.broker.operations.runs import Outcome
from tests.model.asking import groups, ids, locks, outcomes, starts
from tests.model.damage import DamageRules
from tests.model.people_rules import PeopleRules
from tests.model.service_rules import ServiceRules


class QueueMachine(ServiceRules, PeopleRules, DamageRules):
    """All rules."""

    @initialize(new=st.lists(st.tuples(ids, starts, groups, locks), max_size=6), running=st.lists(outcomes, max_size=4))
    def begin_with(self, new: list[tuple[str, str, str, str]], running: list[Outcome]) -> None:
        """Most runs begin with tasks in several states, or all would be spent on empty queues."""
        if new:
            self.enqueue("default", new)
        if running:
            self.dequeue("default", 0, len(running), was_woken=False)
            self.settle("default", 0, [(number, end, 10_000) for number, end in enumerate(running)])

    @rule(seconds=st.sampled_from((10, 10, 20, 30, 40, 130)))
    def let_time_pass(self, seconds: int) -> None:
        self.advance(seconds)

    @rule()
    def forget_the_scripts(self) -> None:
        self.client.script_flush()
