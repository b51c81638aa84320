"""The data that invariants are checked against, and the result of a check."""

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
    """Everything that was recorded during a soak, and the content of Redis after it.

    Attributes:
        history: The merged ledgers.
        incidents: Kills, outages and other events that faults caused.
        queues: Content of the idle queues, by queue.
        effects: Values in the table of side effects, by slot.
        max_retry: Maximum number of retries, by task name.
        canaries: Log files and Redis keys that contain text of payloads although they must not.
        workflows: State of each workflow whose enqueue was not refused, by id; "" if the workflow was deleted.
        remains: Content of taskq's additional keys of the idle queues, by queue.
        beats: Task ids that the periodic entry must have created, from its first to its last recorded firing.
        possible_beats: Task ids that the periodic entry may have created. A firing whose response was lost may have
            been before the first recorded firing or after the last.
        damaged_queue: Name of the queue whose keys fault 31 damages.
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
        """Ids of tasks that are archived or in quarantine."""
        found: set[str] = set()
        for queue in self.queues.values():
            found |= {task.id for task in queue.tasks.values() if task.state == "archived"}
            found |= set(queue.quarantined)
        return found

    @cached_property
    def unix_s(self) -> float:
        """The number to add to a time of the monotonic clock to get Unix seconds."""
        return next((event["unix"] - event["t"] for event in self.history.events if event["event"] == "clock"), 0.0)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The result of checking one invariant.

    Attributes:
        number: Number of the invariant.
        title: What must be true.
        failures: A sentence for each violation; empty if the invariant holds.
        tasks: Ids of the tasks that violate the invariant. The report includes their history.
        figures: Measured values, printed in the report.
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
        """Add a violation."""
        self.failures.append(sentence)
        if task_id is not None:
            self.tasks.append(task_id)
