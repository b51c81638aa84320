"""A state machine with all operations of clients, workers, services and inspectors, in random order.

Each rule executes an operation in the store and in the model and compares the results. After each rule the whole store
must equal the model. `world.read_queues` reads the store and checks that it is consistent. The clock is stopped; only
`advance` moves it.
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from taskq_core.broker.operations.runs import Outcome
from tests.model.base_machine import groups, ids, locks, outcomes, starts
from tests.model.damage import DamageRules
from tests.model.people_rules import PeopleRules
from tests.model.service_rules import ServiceRules


class QueueMachine(ServiceRules, PeopleRules, DamageRules):
    """The machine with all rules."""

    @initialize(new=st.lists(st.tuples(ids, starts, groups, locks), max_size=6), running=st.lists(outcomes, max_size=4))
    def begin_with(self, new: list[tuple[str, str, str, str]], running: list[Outcome]) -> None:
        """Begin with tasks in several states, because rules have little effect on empty queues."""
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
