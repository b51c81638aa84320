"""Serve the health of a process over HTTP: `/livez` and `/readyz`.

`/livez` answers as long as the event loop runs. A `ReadinessCheck` decides what `/readyz` answers; `worker.health` and
`scheduler.health` implement it.
"""

import json
import logging
from http import HTTPStatus
from typing import Any, Protocol

from taskq_core.service.port import Answer, Port, Request

logger = logging.getLogger("taskq.health")


class ReadinessCheck(Protocol):
    """Decides whether a process is ready to do its work."""

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the process is ready, and the body of the response."""
        ...


async def open_health_server(what: str, health: ReadinessCheck, host: str, port: int | None) -> "HealthServer | None":
    """Open the health endpoints. Return None if no port is given.

    Raises:
        OSError: The address cannot be used. The error was logged.
    """
    if port is None:
        return None
    server = HealthServer(health, host, port)
    try:
        await server.start()
    except (OSError, UnicodeError) as error:
        logger.error("the %s cannot start: its health endpoints cannot listen on %s:%d: %s", what, host, port, error)
        raise OSError(str(error)) from error
    logger.info("health endpoints: http://%s:%d/livez and /readyz", host, server.port)
    return server


class HealthServer(Port):
    """Serves the health of a process over HTTP.

    Args:
        health: Decides whether the process is ready.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
    """

    def __init__(self, health: ReadinessCheck, host: str, port: int) -> None:
        super().__init__(self._respond, host, port, refuse=_error)
        self._health = health

    async def _respond(self, request: Request) -> Answer:
        if request.path == "/livez":
            return _document(HTTPStatus.OK, {"status": "alive"})
        if request.path == "/readyz":
            is_ready, body = self._health.report()
            return _document(HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE, body)
        return _error(HTTPStatus.NOT_FOUND, "unknown path; the health endpoints are /livez and /readyz")


def _document(status: HTTPStatus, body: dict[str, Any]) -> Answer:
    return Answer(body=json.dumps(body).encode() + b"\n", content_type="application/json", status=status)


def _error(status: HTTPStatus, message: str) -> Answer:
    return _document(status, {"error": message})
