"""Listen for messages of operators and clients: tasks to cancel, and requests to this worker.

A cancel message is a bare task id from any client that can publish. An id that does not run here costs a look into a
dict per queue. Requests use a separate channel, because the right to cancel tasks is not the right to stop workers.
"""

from collections.abc import Callable, Mapping

from taskq_core.broker.aio import AsyncRunner


class Subscriber:
    """Listens on channels, on one connection.

    Args:
        runner: Opens the subscription.
        handlers: Called with each message, by channel.
    """

    def __init__(self, runner: AsyncRunner, handlers: Mapping[str, Callable[[str], object]]) -> None:
        self._runner = runner
        self._handlers = handlers

    async def work(self) -> float:
        """Listen until the connection ends, which raises."""
        subscription = await self._runner.subscribe(*self._handlers)
        try:
            while True:
                channel, message = await subscription.next_of_any()
                self._handlers[channel](message)
        finally:
            await subscription.close()
