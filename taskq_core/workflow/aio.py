"""Enqueue workflows, for coroutines."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from taskq_core.client import AsyncClient
from taskq_core.client.bulk import aiterate
from taskq_core.client.outbox import OutboxSender
from taskq_core.client.preparer import Preparer
from taskq_core.client.sender import TransactionHook
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerError,
    BrokerFullError,
    EnqueueError,
)
from taskq_core.execution.context import current_task
from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.tasks.canvas import Signature, Whole, group
from taskq_core.workflow.graph import Graph, Node, build
from taskq_core.workflow.members import Batch, Filler, Growing, is_streamed, members_of
from taskq_core.workflow.sending import Outgoing
from taskq_core.workflow.unserved import WorkerCheck

T = TypeVar("T")

CHILDREN_KEPT_S = 2_592_000
"""Seconds for which the results of ended sub-tasks are stored, so that the task that called them can read them."""
SendDeferred = Callable[[Outgoing, WorkflowHandle, list[Batch]], None]
"""Sends a workflow from blocking code after the commit of its transaction."""


class AsyncWorkflowClient:
    """Enqueues workflows.

    Args:
        preparer: Makes keys, headers and spans.
        client: Sends operations.
        send_deferred: Sends a workflow after the commit of its transaction.
        hook: Postpones sending to the commit of a database transaction.
        outbox: Writes workflows to the database, if tasks go through an outbox.
    """

    def __init__(
        self,
        preparer: Preparer,
        client: AsyncClient,
        *,
        send_deferred: SendDeferred,
        hook: TransactionHook | None,
        outbox: OutboxSender | None,
    ) -> None:
        self._preparer = preparer
        self._client = client
        self._send_deferred = send_deferred
        self._hook = hook
        self._outbox = outbox
        self._worker_check = WorkerCheck()

    # --- enqueue ------------------------------------------------------------------------------------------------------

    async def enqueue(self, workflow: Whole[T], hook: TransactionHook | None = None) -> WorkflowHandle[T]:
        """Enqueue a workflow and return its handle. Members of large groups are streamed.

        Args:
            workflow: The workflow.
            hook: Replaces the application's hook that postpones sending to the commit of a transaction. For adapters.

        Raises:
            WorkflowDefinitionError, PayloadTooLargeError: The workflow is not valid. Nothing was written, unless a
                generator yielded the invalid member after its first batch of 200: then the members before it run, and
                the group fails.
            EnqueueError: Redis refused it or cannot be reached; `EnqueueUnknownError` if the workflow may have begun.
        """
        graph = build(workflow)
        streams = [] if self._outbox is not None else [node for node in graph.nodes if is_streamed(node)]
        await self._read(graph, streams)
        outgoing = Outgoing.start(self._preparer, graph, streams)
        handle = WorkflowHandle(
            self._preparer.source,
            id=outgoing.id,
            queue=outgoing.home.name,
            name=graph.details.name or "",
            result_type=graph.result_type,
        )
        if self._outbox is not None:
            try:
                await self._outbox.asend_workflow(outgoing.rows(), handle)
            except BaseException as error:
                outgoing.span.end(error)
                raise
            outgoing.span.end_as_created(outgoing.home.name)
            return handle
        batches: list[Batch] = []
        hook = hook or self._hook
        if hook is not None and await hook.adefer(
            lambda: self._send_deferred(outgoing, handle, batches), handle.mark_rolled_back
        ):
            batches += [batch async for batch in self._batches(outgoing)]
            outgoing.defer(handle)
            return handle
        await self.send(outgoing, handle, self._batches(outgoing))
        return handle

    async def enqueue_children(
        self, calls: Sequence[Signature[Any]], *, workflow_id: str, queue: str, parent: tuple[str, str]
    ) -> None:
        """Enqueue sub-tasks of a task as a group, unless a workflow with this id exists.

        Args:
            calls: The sub-tasks.
            workflow_id: Id of the workflow.
            queue: Queue of the task, which is the home of the workflow.
            parent: Two texts: the name of this call of sub-tasks in the task, and the id of the task.
        """
        graph = build(group(calls).at_home(queue).kept(CHILDREN_KEPT_S))
        await self._read(graph, [])
        outgoing = Outgoing.start(self._preparer, graph, workflow_id=workflow_id, parent=parent)
        handle = WorkflowHandle(self._preparer.source, id=workflow_id, queue=queue)
        await self.send(outgoing, handle, self._batches(outgoing))

    async def _read(self, graph: Graph, streams: list[Node]) -> None:
        """Apply the enqueue middleware to all calls.

        Read the members of all groups that are not streamed into lists.
        """
        for node in graph.nodes:
            if node.call is not None:
                node.call = await self._preparer.middleware.aoutgoing(node.call)
            elif node not in streams:
                node.members = [await self._shown(member) for member in members_of(node)]

    async def _shown(self, member: Any) -> Any:
        is_call = isinstance(member, Signature)
        return await self._preparer.middleware.aoutgoing(member) if is_call else member

    async def _batches(self, outgoing: Outgoing) -> AsyncIterator[Batch]:
        for node in outgoing.streams:
            filler = Filler()
            for number, member in enumerate(node.members):
                if filler.add(outgoing.pack_member(node, await self._shown(member), number)):
                    yield node, *filler.take()
            if filler.members:
                yield node, *filler.take()

    async def send(self, outgoing: Outgoing, handle: WorkflowHandle, batches: AsyncIterator[Batch]) -> None:
        """Send a workflow, then the batches of its streamed members."""
        has_begun = False
        with outgoing.span.current():
            try:
                # Encode the first batch before any write, so that an encoding error stores nothing.
                batch = await anext(batches, None)
                for queue in outgoing.queues.values():
                    with suppress(BrokerFullError):  # a full Redis still accepts sub-tasks of a running task
                        await self._client.register(queue)
                await self._check_worker(outgoing)
                for operation in outgoing.operations():
                    if not await self._client.run(operation):
                        problem = "its first parts expired before the last was sent"
                        raise EnqueueError(outgoing.title, handle.queue, handle.id, problem)
                has_begun = True
                if outgoing.streams:
                    await self._stream(outgoing, batch, batches)
            except BrokerError as cause:
                raise outgoing.error(cause, has_begun=has_begun) from cause

    async def _stream(self, outgoing: Outgoing, batch: Batch | None, others: AsyncIterator[Batch]) -> None:
        try:
            # `run` returns False after the end of the workflow.
            while batch is not None and await self._client.run(outgoing.batch(*batch)):
                batch = await anext(others, None)
        except BaseException as error:
            problem = f"the client that added members failed: {type(error).__name__}"
            await asyncio.shield(self._client.run(outgoing.opened(problem)))
            raise
        await self._client.run(outgoing.opened())

    async def _check_worker(self, outgoing: Outgoing) -> None:
        operation = self._worker_check.operation(outgoing)
        if operation is not None:
            with suppress(BrokerAuthenticationError):  # without the right to list workers, no warning is possible
                self._worker_check.warn(outgoing, await self._client.run(operation))

    # --- members added by a running member ----------------------------------------------------------------------------

    async def grow(self, calls: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]) -> int:
        """Add members to the group of the running task, and return the number of new members.

        Raises:
            NoCurrentTaskError: The code does not run inside a task.
            WorkflowError: The task is not a member of a group of signatures, or its run has ended.
            WorkflowDefinitionError, PayloadTooLargeError: A call is not a valid member. Earlier members are added.
        """
        growing = Growing(self._preparer, current_task())
        added = 0
        with growing.span.current():
            filler = Filler()
            async for call in aiterate(calls):
                if filler.add(growing.pack(await self._shown(call))):
                    added += growing.read(await self._client.run(growing.operation(filler)))
            if filler.members:
                added += growing.read(await self._client.run(growing.operation(filler)))
        return added
