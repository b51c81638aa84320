"""Open the health endpoints of a process, if it has a port for them.

A `ReadinessCheck` decides whether the process is ready; `worker.health` and `scheduler.health` implement it.
"""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskq_core.service.health_server import HealthServer, ReadinessCheck

logger = logging.getLogger("taskq.health")


async def open_health_server(what: str, health: "ReadinessCheck", host: str, port: int | None) -> "HealthServer | None":
    """Open the health endpoints. Return None if no port is given.

    Raises:
        OSError: The address cannot be used. The error was logged.
    """
    if port is None:
        return None
    from taskq_core.service.health_server import HealthServer  # imported late, because most processes have no port

    server = HealthServer(health, host, port)
    try:
        await server.start()
    except (OSError, UnicodeError) as error:
        logger.error("the %s cannot start: its health endpoints cannot listen on %s:%d: %s", what, host, port, error)
        raise OSError(str(error)) from error
    logger.info("health endpoints: http://%s:%d/livez and /readyz", host, server.port)
    return server
