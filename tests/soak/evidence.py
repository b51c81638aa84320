"""All that the verdict is based on, in one record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tests.soak.dump import QueueDump
from tests.soak.incidents import Incidents
from tests.soak.ledger import History
from tests.soak.profiles import Profile
from tests.soak.remains import Remains


@dataclass(kw_only=True)
class Evidence:
    """What is known of a run once it is over.

    Attributes:
        history: The merged ledgers.
        incidents: What was done.
        queues: Redis at rest, by queue.
        effects: The table of side effects: what each slot in question holds.
        max_retry: Most retries, by the name of a task.
        canaries: Where text of payloads was found that must not be there.
        workflows: How each workflow stands whose enqueue was not refused, by id; "" where it is gone.
        remains: Redis's other keys at rest, by queue.
        beats: Ids that the periodic entry's firings must have, from the first to the last that was seen.
        possible_beats: Ids that they may have: an enqueue without an answer may have come before the first, or after
            the last.
    """

    profile: Profile
    history: History
    incidents: Incidents
    queues: Mapping[str, QueueDump]
    effects: Mapping[int, int] = field(default_factory=dict)
    max_retry: Mapping[str, int] = field(default_factory=dict)
    canaries: list[str] = field(default_factory=list)
    workflows: Mapping[str, str] = field(default_factory=dict)
    remains: Mapping[str, Remains] = field(default_factory=dict)
    beats: frozenset[str] = frozenset()
    possible_beats: frozenset[str] = frozenset()
    damaged_queue: str = "damaged"

    @property
    def archived(self) -> set[str]:
        """Ids that ended as failed for good, or were set aside."""
        found: set[str] = set()
        for queue in self.queues.values():
            found |= {task.id for task in queue.tasks.values() if task.state == "archived"}
            found |= set(queue.quarantined)
        return found

    @cached_property
    def unix_s(self) -> float:
        """What turns a monotonic second into a Unix second."""
        return next((event["unix"] - event["t"] for event in self.history.events if event["event"] == "clock"), 0.0)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What one invariant says.

    Attributes:
        number: Its number; 0 for what faults expected.
        title: What must hold.
        failures: Each breach, as a sentence; empty if it holds.
        tasks: Ids of tasks to look at.
        figures: What was measured.
    """

    number: int
    title: str
    failures: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    figures: dict[str, float | int | str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not self.failures

    def fail(self, sentence: str, task_id: str | None = None) -> None:
        """Note a breach."""
        self.failures.append(sentence)
        if task_id is not None:
            self.tasks.append(task_id)
