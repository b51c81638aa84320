"""The workflow clients of a queue application: one for blocking code, one for coroutines."""

from taskq_core.client.runtime import Runtime
from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.wire import validate_queue_name, validate_task_id
from taskq_core.workflow.aio import AsyncWorkflowClient
from taskq_core.workflow.members import Batch
from taskq_core.workflow.sending import Outgoing
from taskq_core.workflow.sync import WorkflowClient


class WorkflowClients:
    """The blocking and the asyncio workflow client of one set of settings.

    Attributes:
        runtime: Keys, connections and clients of the settings.
        blocking: The client for blocking code.
        asyncio: The client for coroutines.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        preparer, hook, outbox, send_deferred = runtime.preparer, runtime.hook, runtime.outbox, self._send_deferred
        self.blocking = WorkflowClient(preparer, runtime.client, send_deferred=send_deferred, hook=hook, outbox=outbox)
        self.asyncio = AsyncWorkflowClient(
            preparer, runtime.async_client, send_deferred=send_deferred, hook=hook, outbox=outbox
        )

    def handle(self, workflow_id: str, queue: str = "default") -> WorkflowHandle:
        """Return the handle of a workflow that was enqueued elsewhere.

        Raises:
            ConfigurationError: The id or the name of the home queue is not valid.
        """
        return WorkflowHandle(self.runtime.source, id=validate_task_id(workflow_id), queue=validate_queue_name(queue))

    def _send_deferred(self, outgoing: Outgoing, handle: WorkflowHandle, batches: list[Batch]) -> None:
        """Send a workflow whose transaction has committed. Record an error in its handle, and raise it."""
        if handle.is_sent:  # `enqueue` has already raised an encoding error
            return
        outgoing.begin_sending()
        try:
            self.blocking.send(outgoing, handle, iter(batches))
        except BaseException as error:
            handle.mark_sent(error)
            raise
        handle.mark_sent()
