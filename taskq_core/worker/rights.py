"""Check at the start that the worker's Redis user may run the commands that the scripts use.

Redis aborts a script at the first forbidden command and keeps its earlier changes. So a script could take a task from
its list without handing it out. The reconciler repairs that, but a worker that causes it with each task must not start.
"""

from collections.abc import Sequence

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import diagnosis
from taskq_core.errors import BrokerAuthenticationError, BrokerError, BrokerReplyError
from taskq_core.wire import QueueKeys


async def check_rights(runner: AsyncRunner, queues: Sequence[QueueKeys]) -> None:
    """Check that the Redis user may run the commands of the scripts, on keys of each queue that do not exist.

    Raises:
        BrokerAuthenticationError: Redis refuses some commands. The error names them.
        BrokerReplyError: The server is not a Redis server that can be used with this URL.
    """
    for queue in queues:
        for key in (f"{queue.prefix}absent", queue.absent):
            try:
                refused = await runner.run(diagnosis.try_commands(key, queue.done))
            except (BrokerAuthenticationError, BrokerReplyError):
                raise  # a BrokerReplyError means that the server is a Sentinel or a node of a cluster
            except BrokerError:
                return  # start the worker anyway: while Redis does not answer, the rights are unknown
            if refused:
                raise BrokerAuthenticationError(
                    f"{runner.endpoint.address} refused the user or password: no permissions to run "
                    f"{', '.join(sorted(refused)).lower()} in scripts on keys of queue {queue.name!r}; "
                    "'taskq doctor' lists the missing permissions"
                )
