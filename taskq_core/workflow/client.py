"""Enqueue workflows, and ask how they stand: one class for blocking code and for coroutines.

What is asked and in which order is written once, as generators of operations (`reading`); here they are sent.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any

from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX
from taskq_core.broker.plans import RequestPlan, T, arun_plan, run_plan
from taskq_core.client import AsyncClient, Client
from taskq_core.client.commits import TransactionHook
from taskq_core.client.outbox import OutboxSender
from taskq_core.client.preparer import Preparer
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerError,
    EnqueueError,
    EnqueueUnknownError,
    WorkflowError,
    WorkflowNotFoundError,
    WorkflowNotSentError,
    WorkflowTimeoutError,
)
from taskq_core.execution.context import current_task
from taskq_core.handles.events import FIRST_LOOK_S, LAST_LOOK_S
from taskq_core.handles.outcomes import EndSubscription
from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.handles.workflow_records import WorkflowGraph
from taskq_core.settings import Duration, seconds
from taskq_core.tasks.canvas import Part, Signature
from taskq_core.tasks.step_options import About
from taskq_core.telemetry import ProducerSpan
from taskq_core.wire import validate_queue_name, validate_task_id
from taskq_core.wire.ids import new_task_id
from taskq_core.workflow.graph import Graph, build
from taskq_core.workflow.reading import NOT_YET, ask_cancel, ask_graph, ask_result, ask_retry
from taskq_core.workflow.sending import WORKFLOW, WORKFLOW_QUEUE, Growing, Outgoing, home_of
from taskq_core.workflow.unserved import WorkerCheck

ABANDONED = "whoever added members failed: {}"
"""Failure of a group that was not sent whole."""


class WorkflowClient:
    """Enqueues workflows, and answers their handles.

    Args:
        preparer: Knows keys, headers and spans.
        client: Sends for blocking code.
        async_client: Sends for coroutines.
        hook: Postpones sending to the commit of a database transaction, if there is one.
        outbox: Writes what goes through a database, where tasks do; a workflow does so whole.
    """

    def __init__(
        self,
        preparer: Preparer,
        client: Client,
        async_client: AsyncClient,
        *,
        hook: TransactionHook | None,
        outbox: OutboxSender | None = None,
    ) -> None:
        self._preparer = preparer
        self._client = client
        self._async_client = async_client
        self._hook = hook
        self._outbox = outbox
        self._worker_check = WorkerCheck()

    def handle(self, workflow_id: str, queue: str = "default") -> WorkflowHandle:
        """Return the handle of a workflow that was enqueued elsewhere.

        Raises:
            ConfigurationError: The id or the name of its home queue cannot be one.
        """
        return WorkflowHandle(self, id=validate_task_id(workflow_id), queue=validate_queue_name(queue))

    # --- enqueue ------------------------------------------------------------------------------------------------------

    def enqueue(self, workflow: Part, hook: TransactionHook | None = None) -> WorkflowHandle:
        """Enqueue a workflow, blocking, and return its handle. Members of large groups are streamed.

        `hook` postpones the sending instead of the application's own hook. For adapters.

        Raises:
            WorkflowDefinitionError, PayloadTooLargeError: It cannot be; nothing was written, unless it is for a member
                of a generator behind its first batch of 200: then the group fails, and members before it run.
            EnqueueError: Redis refused or was not reached; `EnqueueUnknownError` when it may have begun.
        """
        graph = build(workflow)
        show = self._preparer.middleware
        if show.sees_calls:
            for node in graph.nodes:
                if node.call is not None:
                    node.call = show.outgoing(node.call)
        outgoing, handle = self._prepare(graph)
        if self._outbox is not None:
            with _ended(outgoing.span):
                for batch in self._batches(outgoing):
                    outgoing.hold(*batch)
                handle.mark_deferred()
                self._outbox.send_workflow(outgoing.rows(), lambda is_sent: handle.mark_sent(is_late=not is_sent))
            return handle
        early: list[list[tuple[Any, int, list[bytes]]]] = []
        hook = hook or self._hook
        if hook is not None and hook.defer(lambda: self._send_deferred(outgoing, handle, early[0])):
            early.append(list(self._batches(outgoing)))
            handle.mark_deferred()
            return handle
        self._send(outgoing, handle, self._batches(outgoing))
        return handle

    async def aenqueue(self, workflow: Part) -> WorkflowHandle:
        """Enqueue a workflow from a coroutine and return its handle. Raises as `enqueue`."""
        graph = build(workflow)
        show = self._preparer.middleware
        if show.sees_calls:
            for node in graph.nodes:
                if node.call is not None:
                    node.call = await show.aoutgoing(node.call)
        outgoing, handle = self._prepare(graph)
        if self._outbox is not None:
            with _ended(outgoing.span):
                async for batch in self._abatches(outgoing):
                    outgoing.hold(*batch)
                handle.mark_deferred()
                await self._outbox.asend_workflow(
                    outgoing.rows(), lambda is_sent: handle.mark_sent(is_late=not is_sent)
                )
            return handle
        early: list[list[tuple[Any, int, list[bytes]]]] = []
        hook = self._hook
        if hook is not None and await hook.adefer(lambda: self._send_deferred(outgoing, handle, early[0])):
            early.append([batch async for batch in self._abatches(outgoing)])
            handle.mark_deferred()
            return handle
        await self._asend(outgoing, handle)
        return handle

    def _prepare(self, graph: Graph) -> tuple[Outgoing, WorkflowHandle]:
        workflow_id = new_task_id()
        home = home_of(graph, self._preparer.keys)
        span = self._preparer.tracing.start_producer(home.name, graph.about.name or "workflow", workflow_id)
        try:
            outgoing = Outgoing(self._preparer, graph, workflow_id, home, span, is_whole=self._outbox is not None)
        except BaseException as error:
            span.end(error)
            raise
        name = graph.about.name or ""
        return outgoing, WorkflowHandle(self, id=workflow_id, queue=home.name, name=name, result_type=graph.result_type)

    # --- grow from inside ---------------------------------------------------------------------------------------------

    def grow(self, calls: Iterable[Signature[Any]]) -> int:
        """Add members to the group whose member runs here, blocking, and return how many were not there.

        Raises:
            NoCurrentTaskError: The code does not run inside a task.
            WorkflowError: The task is no member of a group of signatures, or its run has ended meanwhile.
            WorkflowDefinitionError, PayloadTooLargeError: A call does not fit; those before are added.
        """
        growing = self._growing()
        show = self._preparer.middleware
        filler, added = _Filler(), 0
        try:
            for call in calls:
                shown = show.outgoing(call) if show.sees_calls else call
                if full := filler.add(growing.pack(shown)):
                    added += growing.read(self._client.run(growing.operation(full[1])))
            if rest := filler.rest():
                added += growing.read(self._client.run(growing.operation(rest[1])))
        finally:
            growing.span.end()
        return added

    async def agrow(self, calls: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]) -> int:
        """Add members to the group whose member runs here. As `grow`, for coroutines."""
        growing = self._growing()
        show = self._preparer.middleware
        filler, added = _Filler(), 0
        try:
            async for call in _each(calls):
                shown = await show.aoutgoing(call) if show.sees_calls else call
                if full := filler.add(growing.pack(shown)):
                    added += growing.read(await self._async_client.run(growing.operation(full[1])))
            if rest := filler.rest():
                added += growing.read(await self._async_client.run(growing.operation(rest[1])))
        finally:
            growing.span.end()
        return added

    def _growing(self) -> Growing:
        context = current_task()
        queue, workflow_id = context.headers.get(WORKFLOW_QUEUE), context.headers.get(WORKFLOW, "")
        name = context.id.removeprefix(f"{workflow_id}.").partition(".")[0]
        if queue is None or not context.id.startswith(f"{workflow_id}.{name}."):
            raise WorkflowError(context.queue, workflow_id, f"task {context.id!r} is no member of a group")
        home = self._preparer.keys.queue(queue)
        span = self._preparer.tracing.start_producer(home.name, name, context.id)
        return Growing(Outgoing(self._preparer, Graph(About()), workflow_id, home, span), name, context)

    def _batches(self, outgoing: Outgoing) -> Iterator[tuple[Any, int, list[bytes]]]:
        """Yield members of groups that are streamed: the node, the number of the first, and what enqueues them."""
        show = self._preparer.middleware
        for node, members in outgoing.streams:
            filler = _Filler()
            for number, member in enumerate(members):
                if show.sees_calls and isinstance(member, Signature):
                    member = show.outgoing(member)
                if full := filler.add(outgoing.pack_member(node, member, number)):
                    yield node, *full
            if rest := filler.rest():
                yield node, *rest

    async def _abatches(self, outgoing: Outgoing) -> AsyncIterator[tuple[Any, int, list[bytes]]]:
        show = self._preparer.middleware
        for node, members in outgoing.streams:
            filler = _Filler()
            number = 0
            async for member in _each(members):
                if show.sees_calls and isinstance(member, Signature):
                    member = await show.aoutgoing(member)
                if full := filler.add(outgoing.pack_member(node, member, number)):
                    yield node, *full
                number += 1
            if rest := filler.rest():
                yield node, *rest

    def _send_deferred(
        self, outgoing: Outgoing, handle: WorkflowHandle, batches: list[tuple[Any, int, list[bytes]]]
    ) -> None:
        """Send a workflow whose transaction has committed. Its handle notes what goes wrong, and it is raised."""
        try:
            self._send(outgoing, handle, iter(batches))
        except BaseException as error:
            handle.mark_sent(error)
            raise
        handle.mark_sent()

    def _send(
        self, outgoing: Outgoing, handle: WorkflowHandle, batches: Iterator[tuple[Any, int, list[bytes]]]
    ) -> None:
        problem: BaseException | None = None
        has_begun = False
        try:
            early = list(islice(batches, 1))  # a member of these that is refused is so before anything is written
            for queue in outgoing.queues.values():
                self._client.register(queue)
            if look := self._worker_check.operation(outgoing):
                with suppress(BrokerAuthenticationError):  # this user may not ask
                    self._worker_check.warn(outgoing, self._client.run(look))
            for operation in outgoing.operations():
                if not self._client.run(operation):
                    raise EnqueueError(_what(handle), handle.queue, handle.id, "it took too long to store it")
            outgoing.begun()
            has_begun = True
            try:
                for node, first, members in chain(early, batches):
                    if not self._client.run(outgoing.batch(node, first, members)):
                        break  # it was cancelled, or is over
            except BaseException as error:
                problem = error
                self._client.run(outgoing.opened(ABANDONED.format(type(error).__name__)))
                raise
            if outgoing.streams:
                self._client.run(outgoing.opened())
        except BrokerError as cause:
            problem = _failure(handle, cause, has_begun)
            raise problem from cause
        except BaseException as error:
            problem = error
            raise
        finally:
            outgoing.span.end(problem)

    async def _asend(self, outgoing: Outgoing, handle: WorkflowHandle) -> None:
        """As `_send`, and written twice: what a generator of members raises has to reach this, past any steps."""
        problem: BaseException | None = None
        has_begun = False
        batches = self._abatches(outgoing)
        try:
            batch = await anext(batches, None)  # as in `_send`
            for queue in outgoing.queues.values():
                await self._async_client.register(queue)
            if look := self._worker_check.operation(outgoing):
                with suppress(BrokerAuthenticationError):
                    self._worker_check.warn(outgoing, await self._async_client.run(look))
            for operation in outgoing.operations():
                if not await self._async_client.run(operation):
                    raise EnqueueError(_what(handle), handle.queue, handle.id, "it took too long to store it")
            outgoing.begun()
            has_begun = True
            try:
                while batch is not None:
                    if not await self._async_client.run(outgoing.batch(*batch)):
                        break
                    batch = await anext(batches, None)
            except BaseException as error:
                problem = error
                await asyncio.shield(self._async_client.run(outgoing.opened(ABANDONED.format(type(error).__name__))))
                raise
            if outgoing.streams:
                await self._async_client.run(outgoing.opened())
        except BrokerError as cause:
            problem = _failure(handle, cause, has_begun)
            raise problem from cause
        except BaseException as error:
            problem = error
            raise
        finally:
            outgoing.span.end(problem)

    # --- ask ----------------------------------------------------------------------------------------------------------

    def _ask(self, handle: WorkflowHandle, steps: RequestPlan[T]) -> T:
        with _asked(handle):
            return run_plan(steps, self._client.run)

    async def _aask(self, handle: WorkflowHandle, steps: RequestPlan[T]) -> T:
        with _asked(handle):
            return await arun_plan(steps, self._async_client.run)

    def read(self, handle: WorkflowHandle) -> WorkflowGraph:
        """Read the workflow."""
        return self._ask(handle, ask_graph(self._preparer.keys, handle.queue, handle.id))

    async def aread(self, handle: WorkflowHandle) -> WorkflowGraph:
        """Read the workflow."""
        return await self._aask(handle, ask_graph(self._preparer.keys, handle.queue, handle.id))

    def wait(self, handle: WorkflowHandle, timeout: Duration | None) -> Any:
        """Block until the workflow has ended and return its result."""
        timeout_s = math.inf if timeout is None else seconds("timeout", timeout)
        deadline = time.monotonic() + timeout_s
        queue = self._preparer.keys.queue(handle.queue)
        pause_s = FIRST_LOOK_S
        subscription: EndSubscription | None = None
        try:
            while True:
                try:
                    result = self._ask(handle, ask_result(queue, handle.id, handle.result_type, tell_end=True))
                except WorkflowNotSentError:
                    result = NOT_YET
                if result is not NOT_YET:
                    return result
                if time.monotonic() >= deadline:
                    raise _timed_out(handle, timeout_s)
                if subscription is None:
                    subscription = self._client.subscribe_end(queue.done, handle.id)
                    subscription.open()
                    continue
                subscription.listen(min(time.monotonic() + pause_s, deadline))
                pause_s = min(2 * pause_s, LAST_LOOK_S)
        finally:
            if subscription is not None:
                subscription.close()

    async def await_(self, handle: WorkflowHandle, timeout: Duration | None) -> Any:
        """Wait until the workflow has ended and return its result."""
        timeout_s = math.inf if timeout is None else seconds("timeout", timeout)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        queue = self._preparer.keys.queue(handle.queue)
        pause_s = FIRST_LOOK_S
        async with self._async_client.listen(queue.done, handle.id) as ended:
            while True:
                try:
                    result = await self._aask(handle, ask_result(queue, handle.id, handle.result_type, tell_end=True))
                except WorkflowNotSentError:
                    result = NOT_YET
                if result is not NOT_YET:
                    return result
                left = deadline - loop.time()
                if left <= 0:
                    raise _timed_out(handle, timeout_s)
                try:
                    async with asyncio.timeout(min(pause_s, left)):
                        await ended.wait()
                except TimeoutError:
                    pass
                ended.clear()
                pause_s = min(2 * pause_s, LAST_LOOK_S)

    # --- act ----------------------------------------------------------------------------------------------------------

    def cancel(self, handle: WorkflowHandle) -> bool:
        """Cancel the workflow."""
        return self._ask(handle, ask_cancel(self._preparer.keys, handle.queue, handle.id))

    async def acancel(self, handle: WorkflowHandle) -> bool:
        """Cancel the workflow."""
        return await self._aask(handle, ask_cancel(self._preparer.keys, handle.queue, handle.id))

    def retry(self, handle: WorkflowHandle) -> int:
        """Run what failed again."""
        return self._ask(handle, ask_retry(self._preparer.keys.queue(handle.queue), handle.id))

    async def aretry(self, handle: WorkflowHandle) -> int:
        """Run what failed again."""
        return await self._aask(handle, ask_retry(self._preparer.keys.queue(handle.queue), handle.id))


class _Filler:
    """Gathers members of a group into batches."""

    def __init__(self) -> None:
        self._first = 0
        self._members: list[bytes] = []
        self._bytes = 0

    def add(self, packed: bytes) -> tuple[int, list[bytes]] | None:
        """Add one, and return the batch if it is full now."""
        self._members.append(packed)
        self._bytes += len(packed)
        return self.rest() if len(self._members) >= BATCH_MAX or self._bytes >= BATCH_BYTES else None

    def rest(self) -> tuple[int, list[bytes]] | None:
        """Return the batch that is not full, None if it is empty."""
        members, first = self._members, self._first
        if not members:
            return None
        self._first += len(members)
        self._members, self._bytes = [], 0
        return first, members


@contextmanager
def _ended(span: ProducerSpan) -> Iterator[None]:
    """End a span with what goes wrong inside, if anything."""
    problem: BaseException | None = None
    try:
        yield
    except BaseException as error:
        problem = error
        raise
    finally:
        span.end(problem)


@contextmanager
def _asked(handle: WorkflowHandle) -> Iterator[None]:
    """Say of a workflow that is not there that it was not sent, while it may wait in an outbox."""
    try:
        yield
    except WorkflowNotFoundError:
        if not handle.is_late:
            raise
    else:
        handle.is_late = False
        return
    raise WorkflowNotSentError(handle.queue, handle.id, "it waits in the outbox until a worker sends it")


async def _each(members: Any) -> AsyncIterator[Any]:
    if isinstance(members, AsyncIterable):
        async for member in members:
            yield member
        return
    for member in members:
        yield member


def _what(handle: WorkflowHandle) -> str:
    return handle.name or "workflow"


def _failure(handle: WorkflowHandle, cause: BrokerError, has_begun: bool) -> EnqueueError:
    kind = EnqueueUnknownError if has_begun or cause.may_have_happened else EnqueueError
    return kind(_what(handle), handle.queue, handle.id, str(cause))


def _timed_out(handle: WorkflowHandle, timeout_s: float) -> WorkflowTimeoutError:
    return WorkflowTimeoutError(handle.queue, handle.id, f"it has not ended within {timeout_s:g} s")
