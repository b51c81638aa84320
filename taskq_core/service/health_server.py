"""Serve the health of a process over HTTP: `/livez` and `/readyz`.

`/livez` answers as long as the event loop runs. A `ReadinessCheck` decides what `/readyz` answers.
"""

import json
from http import HTTPStatus
from typing import Any, Protocol

from taskq_core.service.port import Answer, Port, Request


class ReadinessCheck(Protocol):
    """Decides whether a process is ready to do its work."""

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the process is ready, and the body of the response."""
        ...


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
