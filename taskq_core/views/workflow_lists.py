"""List and search workflows.

A list by queue, and by running or ended, reads the workflows of one page. A search by name or state reads workflows, at
most `WORKFLOW_SCAN_MAX` in each call, and returns a cursor to continue.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from taskq_core.broker.operations import workflows
from taskq_core.broker.operations.workflows import StoredWorkflow, StoredWorkflows
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError
from taskq_core.handles.workflow_plans import read_state, read_time
from taskq_core.handles.workflow_records import WorkflowState
from taskq_core.inspector.cursors import Count, read_cursor, write_cursor
from taskq_core.inspector.known import known_queue
from taskq_core.settings import check_whole
from taskq_core.wire import Keys, QueueKeys

WORKFLOWS_MAX = 1_000
"""Maximum number of workflows on a page."""
WORKFLOW_SCAN_MAX = 2_000
"""Maximum number of workflows that a search reads in one call."""
_STEP = 200
_RUNNING, _ENDED = "r", "e"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRow:
    """A workflow in a list.

    Attributes:
        queue: Home queue of the workflow.
        id: Id of the workflow.
        name: Given name of the workflow, or the names of the first steps, such as `fetch → resize → notify`.
        state: State of the workflow.
        created_at: Time of its creation, in UTC. None: the workflow is damaged.
        ended_at: Time of its end. None while it runs.
        steps: Number of steps. Each member of a group counts; if there are more than 100 groups, each group counts as
            one.
        steps_ended: Number of these steps that have ended.
        steps_failed: Number of failed steps, without steps whose failure the workflow ignores.
    """

    queue: str
    id: str
    name: str
    state: WorkflowState
    created_at: datetime | None
    ended_at: datetime | None
    steps: int = 0
    steps_ended: int = 0
    steps_failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowsPage:
    """A page of the workflows of a home queue.

    Attributes:
        queue: Name of the queue.
        rows: Running workflows, then ended workflows. Both parts begin with the newest.
        running: Number of running workflows.
        ended: Number of ended workflows that are stored.
    """

    queue: str
    rows: Sequence[WorkflowRow]
    running: int
    ended: int

    @property
    def total(self) -> int:
        """Number of workflows."""
        return self.running + self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCounts:
    """Numbers of the workflows whose state is stored with one queue, their home queue.

    Attributes:
        queue: Name of the queue.
        running: Number of running workflows.
        ended: Number of ended workflows that are stored.
    """

    queue: str
    running: int
    ended: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFilter:
    """A filter for workflows. A workflow must match every field that is not None or "".

    Attributes:
        queue: Home queue of the workflows.
        state: State of the workflows.
        text: Part of their id, name or home queue. Case does not matter.
    """

    queue: str | None = None
    state: WorkflowState | None = None
    text: str = ""

    @property
    def needs_reading(self) -> bool:
        """Whether the filter has fields that can be checked only by reading workflows."""
        return bool(self.text) or self.state not in (None, WorkflowState.RUNNING)

    def of(self, counts: Iterable[WorkflowCounts]) -> list[WorkflowCounts]:
        """Return the counts of the queues that match the filter's `queue`. Return all counts if `queue` is None."""
        return [each for each in counts if self.queue in (None, each.queue)]

    def size(self, counts: Iterable[WorkflowCounts]) -> int:
        """Return the number of workflows in all lists of running or ended workflows that match the filter."""
        return sum(size for _, _, size in _parts(self.of(counts), self.state))

    def fits(self, row: WorkflowRow) -> bool:
        """Return whether a workflow matches. The caller has checked its queue."""
        if self.state not in (None, row.state):
            return False
        text = self.text.casefold()
        return any(text in each.casefold() for each in (row.id, row.name, row.queue))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSearch:
    """The result of a search.

    Attributes:
        rows: Matching workflows, running workflows first.
        scanned: Number of workflows that this call read.
        total: Number of workflows in the searched queues.
        cursor: Pass this to the next call to continue. None if all workflows were read. Only then does an empty result
            mean that no workflow matches.
        read: Number of workflows that this call and the calls before it have read.
        matched: Number of matching workflows that this call and the calls before it have found.
    """

    rows: Sequence[WorkflowRow]
    scanned: int
    total: int
    cursor: str | None
    read: int
    matched: int


def read_workflows(keys: Keys, queue: str, *, skip: int = 0, count: int = 50) -> RequestPlan[WorkflowsPage]:
    """Return the workflows of a home queue: running workflows, then ended ones. Both parts begin with the newest.

    Args:
        queue: Name of the queue.
        skip: Number of workflows to skip.
        count: Maximum number of workflows to return, 1 to 1000.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: A number is out of bounds.
    """
    check_whole("skip", skip, least=0, most=10**12)
    check_whole("count", count, least=1, most=WORKFLOWS_MAX)
    queue_keys = yield from known_queue(keys, queue)
    found = yield from ask(workflows.list_workflows(queue_keys, skip=skip, count=count))
    return WorkflowsPage(queue=queue, rows=_rows(queue_keys, found), running=found.running, ended=found.ended)


def count_workflows(keys: Keys, names: Sequence[str]) -> RequestPlan[Sequence[WorkflowCounts]]:
    """Count the workflows of each of these home queues, by name."""
    counts = []
    for name in sorted(names):
        found = yield from ask(workflows.list_workflows(keys.queue(name), skip=0, count=0))
        counts.append(WorkflowCounts(queue=name, running=found.running, ended=found.ended))
    return counts


def list_workflows(
    keys: Keys, counts: Sequence[WorkflowCounts], wanted: WorkflowFilter, *, skip: int = 0, count: int = 50
) -> RequestPlan[Sequence[WorkflowRow]]:
    """Return workflows of several queues: running ones queue by queue, then ended ones.

    Args:
        counts: Number of workflows, from `workflow_counts`.
        wanted: The filter. The filter must not have fields for which workflows must be read.
        skip: Number of workflows to skip.
        count: Maximum number of workflows to return, 1 to 1000.

    Raises:
        ConfigurationError: The filter needs to read workflows, or a number is out of bounds.
    """
    if wanted.needs_reading:
        raise ConfigurationError(
            "workflows are listed by queue and running or ended only; use search_workflows, which reads each workflow"
        )
    check_whole("skip", skip, least=0, most=10**12)
    check_whole("count", count, least=1, most=WORKFLOWS_MAX)
    rows: list[WorkflowRow] = []
    for which, name, size in _parts(wanted.of(counts), wanted.state):
        if skip < size and len(rows) < count:
            queue = keys.queue(name)
            left = min(count - len(rows), size - skip)
            found = yield from ask(workflows.list_workflows(queue, which=which, skip=skip, count=left))
            rows += _rows(queue, found)
        skip = max(0, skip - size)
    return rows


def search_workflows(
    keys: Keys,
    counts: Sequence[WorkflowCounts],
    wanted: WorkflowFilter,
    *,
    cursor: str | None = None,
    scan: int = WORKFLOW_SCAN_MAX,
    limit: int = WORKFLOW_SCAN_MAX,
) -> RequestPlan[WorkflowSearch]:
    """Search workflows that match a filter.

    Args:
        counts: Number of workflows, from `workflow_counts`.
        wanted: The filter.
        cursor: `WorkflowSearch.cursor` of the previous call, with the same filter.
        scan: Maximum number of workflows to read, up to 2,000.
        limit: Maximum number of workflows to return, up to 2,000.

    Raises:
        ConfigurationError: The cursor is not valid, or a number is out of bounds.
    """
    check_whole("scan", scan, least=1, most=WORKFLOW_SCAN_MAX)
    check_whole("limit", limit, least=1, most=WORKFLOW_SCAN_MAX)
    parts = list(_parts(wanted.of(counts), wanted.state))
    total = sum(size for _, _, size in parts)
    rows: list[WorkflowRow] = []
    scanned = 0
    before = None if cursor is None else read_cursor(cursor, _Place)
    number, skip = (0, 0) if before is None else _place(parts, before)
    read, matched = (0, 0) if before is None else (before.read, before.matched)
    following: str | None = None
    while number < len(parts):
        which, name, size = parts[number]
        if scanned >= scan or len(rows) >= limit:
            following = write_cursor(_Place(which, name, skip, read + scanned, matched + len(rows)))
            break
        count = min(_STEP, scan - scanned, size - skip)
        queue = keys.queue(name)
        found = yield from ask(workflows.list_workflows(queue, which=which, skip=skip, count=count))
        for row in _rows(queue, found):
            if wanted.fits(row):
                rows.append(row)
            scanned, skip, count = scanned + 1, skip + 1, count - 1
            if len(rows) >= limit:
                break
        else:  # Redis may return fewer workflows than were counted
            scanned, skip = scanned + count, skip + count
        if skip >= size:
            number, skip = number + 1, 0
    return WorkflowSearch(
        rows=rows,
        scanned=scanned,
        total=total,
        cursor=following,
        read=read + scanned,
        matched=matched + len(rows),
    )


def _parts(counts: Iterable[WorkflowCounts], state: WorkflowState | None) -> Iterator[tuple[str, str, int]]:
    """Yield the lists of running or ended workflows that are not empty: kind, queue, and number of workflows."""
    counts = list(counts)
    if state in (None, WorkflowState.RUNNING, WorkflowState.DAMAGED):
        yield from ((_RUNNING, each.queue, each.running) for each in counts if each.running)
    if state is not WorkflowState.RUNNING:
        yield from ((_ENDED, each.queue, each.ended) for each in counts if each.ended)


class _Place(NamedTuple):
    """The place at which a search continues: a list, and the number of its workflows to skip.

    It also has the numbers of workflows that the search has read and found so far.
    """

    which: str
    queue: str
    skip: Count
    read: Count = 0
    matched: Count = 0


def _place(parts: Sequence[tuple[str, str, int]], place: _Place) -> tuple[int, int]:
    """Return the number of the list at which a search continues, and the number of workflows in it to skip."""
    wanted = (place.which == _ENDED, place.queue)
    for number, (which, queue, size) in enumerate(parts):
        here = (which == _ENDED, queue)
        if here == wanted and place.skip < size:
            return number, place.skip
        if here > wanted:  # the cursor's list is empty or was read to its end: continue with the next list
            return number, 0
    return len(parts), 0


def _rows(queue: QueueKeys, found: StoredWorkflows) -> list[WorkflowRow]:
    return [_row(queue, each) for each in found.rows]


def _row(queue: QueueKeys, found: StoredWorkflow) -> WorkflowRow:
    name = found.name.decode("utf-8", "replace")
    try:
        return WorkflowRow(
            queue=queue.name,
            id=found.id,
            name=name,
            state=read_state(found.state),
            created_at=read_time("created", found.created),
            ended_at=read_time("ended", found.ended) if found.ended else None,
            steps=found.steps,
            steps_ended=found.steps_ended,
            steps_failed=found.steps_failed,
        )
    except ValueError:
        return WorkflowRow(
            queue=queue.name, id=found.id, name=name, state=WorkflowState.DAMAGED, created_at=None, ended_at=None
        )
