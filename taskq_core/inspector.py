"""Look at queues and tasks: `Inspector` for blocking code, `AsyncInspector` for coroutines.

Read only: looking changes nothing. A task that cannot be decoded is shown as such rather than hidden or raised, since
somebody has to find it. What is asked and how the answers read is written once; the two classes only send it. Tasks
that wait in a group are counted, not listed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TypeVar

from taskq_core.app import TaskQ
from taskq_core.broker import operations
from taskq_core.broker.operations import Operation, Page, QueueCounts, StoredTask
from taskq_core.errors import QueueNotFoundError, TaskNotFoundError, WireFormatError
from taskq_core.records import TaskInfo, task_info
from taskq_core.settings import check_whole
from taskq_core.wire import Keys, TaskState

T = TypeVar("T")

PAGE_SIZE_MAX = 1000
"""Most tasks on a page."""

LISTED_STATES = (
    TaskState.ACTIVE,
    TaskState.PENDING,
    TaskState.SCHEDULED,
    TaskState.RETRY,
    TaskState.ARCHIVED,
    TaskState.COMPLETED,
)
"""States whose tasks can be listed, in the order in which they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """One queue as it stands.

    Attributes:
        name: Name of the queue.
        sizes: Tasks by state.
        is_paused: True while workers take nothing.
        processed: Tasks that ran, over the queue's life; those that failed included.
        failed: Runs that failed, over the queue's life.
        processed_today: As `processed`, since midnight UTC.
        failed_today: As `failed`, since midnight UTC.
        latency: How long the next task to run has been pending; None if none is, or if it does not say.
        as_of: When this was read, by Redis's clock.
    """

    name: str
    sizes: Mapping[TaskState, int]
    is_paused: bool
    processed: int
    failed: int
    processed_today: int
    failed_today: int
    latency: timedelta | None
    as_of: datetime

    @property
    def size(self) -> int:
        """Tasks in all states together."""
        return sum(self.sizes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableTask:
    """A task that is listed but cannot be decoded.

    Attributes:
        id: Id under which it is listed.
        queue: Queue it is in.
        state: State it is listed in.
        problem: Why it cannot be read.
        message: Its bytes, b"" if there are none.
    """

    id: str
    queue: str
    state: TaskState
    problem: str
    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """A page of tasks.

    Attributes:
        tasks: The tasks. First comes what is next to run or was started first.
        total: How many there are on all pages.
        page: Number of this page, from 1.
        page_size: Most tasks on a page.
    """

    tasks: Sequence[TaskInfo | UnreadableTask]
    total: int
    page: int
    page_size: int

    @property
    def pages(self) -> int:
        """Number of pages, at least 1."""
        return max(1, -(-self.total // self.page_size))


# --- what is asked, and how the answers read --------------------------------------------------------------------------


def _queue_info(name: str, counts: QueueCounts) -> QueueInfo:
    latency_s = counts.latency_s
    return QueueInfo(
        name=name,
        sizes=MappingProxyType(counts.sizes),
        is_paused=counts.is_paused,
        processed=counts.processed,
        failed=counts.failed,
        processed_today=counts.processed_today,
        failed_today=counts.failed_today,
        latency=None if latency_s is None else timedelta(seconds=latency_s),
        as_of=datetime.fromtimestamp(counts.now_ns / 1e9, tz=UTC),
    )


def _read(queue: str, stored: StoredTask) -> TaskInfo | UnreadableTask:
    problem = "it is listed, but its data is gone"
    if stored.message:
        try:
            return task_info(stored)
        except WireFormatError as error:
            problem = str(error)
    assert stored.state is not None
    return UnreadableTask(id=stored.task_id, queue=queue, state=stored.state, problem=problem, message=stored.message)


def _found(queue: str, task_id: str, stored: StoredTask | None) -> TaskInfo | UnreadableTask:
    if stored is None:
        raise TaskNotFoundError(queue, task_id)
    return _read(queue, stored)


def _check_listed(queues: Sequence[str], queue: str) -> None:
    if queue not in queues:
        raise QueueNotFoundError(queue)


def _check_page(page: int, page_size: int) -> None:
    check_whole("page", page, least=1, most=10**9)
    check_whole("page_size", page_size, least=1, most=PAGE_SIZE_MAX)


class _Listing:
    """A page that may stretch over several queues and states: state by state, and queue by queue within one."""

    def __init__(self, keys: Keys, *, page: int, page_size: int) -> None:
        _check_page(page, page_size)
        self._keys = keys
        self._page = page
        self._page_size = page_size

    def one(self, queue: str, state: TaskState) -> Operation[Page]:
        """What to ask for a page of one queue and state."""
        skip = (self._page - 1) * self._page_size
        return operations.list_tasks(self._keys.queue(queue), state, skip=skip, count=self._page_size)

    def parts(self, infos: Iterable[QueueInfo], state: TaskState | None) -> list[tuple[str, Operation[Page]]]:
        """What to ask, queue by queue, for a page of several; `infos` says how many tasks each has."""
        infos = list(infos)
        skip, left = (self._page - 1) * self._page_size, self._page_size
        parts = []
        for each in LISTED_STATES if state is None else (state,):
            for info in infos:
                size = info.sizes[each]
                count = min(left, size - skip)
                if count > 0:
                    keys = self._keys.queue(info.name)
                    parts.append((info.name, operations.list_tasks(keys, each, skip=skip, count=count)))
                    left -= count
                skip = max(0, skip - size)
        return parts

    def page(self, answers: Iterable[tuple[str, Page]], total: int) -> TaskPage:
        """The page that the answers make."""
        tasks = tuple(_read(queue, stored) for queue, answer in answers for stored in answer.tasks)
        return TaskPage(tasks=tasks, total=total, page=self._page, page_size=self._page_size)


def total_of(infos: Iterable[QueueInfo], state: TaskState | None) -> int:
    """Return how many tasks of these queues can be listed in a state; None means in all of them together."""
    states = LISTED_STATES if state is None else (state,) if state in LISTED_STATES else ()
    return sum(info.sizes[each] for info in infos for each in states)


# --- the two faces ----------------------------------------------------------------------------------------------------


class Inspector:
    """Looks at queues and tasks from blocking code.

    Every method raises a `BrokerError` when the store refuses or does not answer within the enqueue timeout.

    Args:
        app: The queue application whose store is looked at.
    """

    def __init__(self, app: TaskQ) -> None:
        runtime = app.runtime
        self._keys = runtime.keys
        self._runner = runtime.runner
        self._patience_s = float(runtime.settings.enqueue_timeout)  # type: ignore[arg-type]  # Settings made it seconds

    def _run(self, operation: Operation[T]) -> T:
        return self._runner.run(operation, patience_s=self._patience_s)

    def queues(self) -> list[str]:
        """Return the names of all queues that were ever enqueued to, sorted."""
        return self._run(operations.list_queues(self._keys.queues))

    def queue_info(self, name: str) -> QueueInfo:
        """Return how a queue stands.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        _check_listed(self.queues(), name)
        return self._info(name)

    def queue_infos(self) -> list[QueueInfo]:
        """Return how every queue stands, sorted by name."""
        return [self._info(name) for name in self.queues()]

    def _info(self, name: str) -> QueueInfo:
        return _queue_info(name, self._run(operations.count_tasks(self._keys.queue(name))))

    def tasks(
        self, queue: str | None = None, state: TaskState | None = None, *, page: int = 1, page_size: int = 30
    ) -> TaskPage:
        """Return a page of tasks.

        Args:
            queue: Name of their queue; None for all queues.
            state: Their state; None for all, one after another as in `LISTED_STATES`.
            page: Number of the page, from 1. One beyond the last is empty.
            page_size: Most tasks on a page, 1 to 1000.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: Page or page size is out of bounds.
        """
        listing = _Listing(self._keys, page=page, page_size=page_size)
        if queue is not None and state is not None:
            _check_listed(self.queues(), queue)
            if state not in LISTED_STATES:
                return listing.page((), 0)
            answer = self._run(listing.one(queue, state))
            return listing.page([(queue, answer)], answer.size)
        infos = self.queue_infos() if queue is None else [self.queue_info(queue)]
        return self.tasks_of(infos, state, page=page, page_size=page_size)

    def tasks_of(
        self, infos: Iterable[QueueInfo], state: TaskState | None = None, *, page: int = 1, page_size: int = 30
    ) -> TaskPage:
        """Return a page of the tasks of queues that were just looked at. Otherwise as `tasks`."""
        listing = _Listing(self._keys, page=page, page_size=page_size)
        infos = list(infos)
        total = total_of(infos, state)
        parts = listing.parts(infos, state) if total else []
        return listing.page([(name, self._run(operation)) for name, operation in parts], total)

    def task(self, queue: str, task_id: str) -> TaskInfo | UnreadableTask:
        """Return one task.

        Raises:
            TaskNotFoundError: The queue holds no task with this id.
        """
        look = operations.look(self._keys.queue(queue), task_id)
        return _found(queue, task_id, self._run(look))


class AsyncInspector:
    """Looks at queues and tasks from coroutines. As `Inspector`."""

    def __init__(self, app: TaskQ) -> None:
        runtime = app.runtime
        self._keys = runtime.keys
        self._runner = runtime.async_runner
        self._patience_s = float(runtime.settings.enqueue_timeout)  # type: ignore[arg-type]  # Settings made it seconds

    async def _run(self, operation: Operation[T]) -> T:
        return await self._runner.run(operation, patience_s=self._patience_s)

    async def queues(self) -> list[str]:
        """Return the names of all queues that were ever enqueued to, sorted."""
        return await self._run(operations.list_queues(self._keys.queues))

    async def queue_info(self, name: str) -> QueueInfo:
        """Return how a queue stands. As `Inspector.queue_info`."""
        _check_listed(await self.queues(), name)
        return await self._info(name)

    async def queue_infos(self) -> list[QueueInfo]:
        """Return how every queue stands, sorted by name."""
        return [await self._info(name) for name in await self.queues()]

    async def _info(self, name: str) -> QueueInfo:
        return _queue_info(name, await self._run(operations.count_tasks(self._keys.queue(name))))

    async def tasks(
        self, queue: str | None = None, state: TaskState | None = None, *, page: int = 1, page_size: int = 30
    ) -> TaskPage:
        """Return a page of tasks. As `Inspector.tasks`."""
        listing = _Listing(self._keys, page=page, page_size=page_size)
        if queue is not None and state is not None:
            _check_listed(await self.queues(), queue)
            if state not in LISTED_STATES:
                return listing.page((), 0)
            answer = await self._run(listing.one(queue, state))
            return listing.page([(queue, answer)], answer.size)
        infos = await self.queue_infos() if queue is None else [await self.queue_info(queue)]
        return await self.tasks_of(infos, state, page=page, page_size=page_size)

    async def tasks_of(
        self, infos: Iterable[QueueInfo], state: TaskState | None = None, *, page: int = 1, page_size: int = 30
    ) -> TaskPage:
        """Return a page of the tasks of queues that were just looked at. As `Inspector.tasks_of`."""
        listing = _Listing(self._keys, page=page, page_size=page_size)
        infos = list(infos)
        total = total_of(infos, state)
        parts = listing.parts(infos, state) if total else []
        return listing.page([(name, await self._run(operation)) for name, operation in parts], total)

    async def task(self, queue: str, task_id: str) -> TaskInfo | UnreadableTask:
        """Return one task. As `Inspector.task`."""
        look = operations.look(self._keys.queue(queue), task_id)
        return _found(queue, task_id, await self._run(look))
