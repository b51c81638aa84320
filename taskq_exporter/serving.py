"""Serve the metrics of an exporter on a separate port.

The port is open only to this machine, and requests must name this machine in `Host`, unless `is_open` is set.
"""

import asyncio
import logging
import math
import signal
from collections.abc import Callable, Mapping
from http import HTTPStatus

from taskq_core import TaskQ
from taskq_core.cli.plugin import (
    Answer,
    Port,
    RedisWait,
    Request,
    names_this_machine,
    run_service,
    signal_handlers,
    text_answer,
)
from taskq_core.errors import ConfigurationError
from taskq_exporter.config import ExporterConfig
from taskq_exporter.exporter import Exporter

logger = logging.getLogger("taskq.exporter")

_HOME = "taskq exporter: metrics at /metrics, health checks at /livez and /readyz (which reads Redis)"
_WAIT_HEADER = "x-prometheus-scrape-timeout-seconds"


class ExporterPort(Port):
    """Serves `/metrics`, `/livez` and `/readyz`.

    Args:
        exporter: The exporter.
        config: The address, and who may scrape.
    """

    def __init__(self, exporter: Exporter, config: ExporterConfig) -> None:
        super().__init__(
            self._respond, config.host, config.port, refuse=lambda status, words: text_answer(words, status)
        )
        self._exporter = exporter
        self._is_open = config.is_open

    async def _respond(self, request: Request) -> Answer:
        if request.path == "/livez":
            return text_answer("alive")
        if request.path == "/readyz":
            if await self._exporter.read() is not None:
                return text_answer("ready")
            return text_answer("Redis does not answer", HTTPStatus.SERVICE_UNAVAILABLE)
        if not self._is_open and not names_this_machine(request.headers.get("host", "")):
            return text_answer("use localhost or a loopback address such as 127.0.0.1", HTTPStatus.FORBIDDEN)
        if request.path == "/metrics":
            return await self._metrics(request.headers)
        return text_answer(_HOME, HTTPStatus.OK if request.path == "/" else HTTPStatus.NOT_FOUND)

    async def _metrics(self, headers: Mapping[str, str]) -> Answer:
        exposition = await self._exporter.expose(
            accept=headers.get("accept", ""),
            accept_encoding=headers.get("accept-encoding", ""),
            wait_s=wait_s(headers.get(_WAIT_HEADER, "")),
        )
        more = dict(exposition.headers)
        return Answer(body=exposition.body, content_type=more.pop("Content-Type"), headers=more)


def wait_s(said: str) -> float | None:
    """Return the timeout in seconds that a scraper's header contains, None if the value is not valid."""
    try:
        number = float(said)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def run_exporter(app: TaskQ, config: ExporterConfig, *, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve the metrics of an application until SIGTERM or SIGINT, then close its connections.

    Args:
        app: The queue application.
        config: The configuration.
        ready: Called with the URL of the metrics as soon as the exporter listens.

    Raises:
        ConfigurationError: The exporter cannot listen on the address.
        BrokerError: Redis refused the exporter at the start, or cannot be reached and must not be waited for.
    """
    run_service(_serve(app, config, ready))


async def _serve(app: TaskQ, config: ExporterConfig, ready: Callable[[str], None]) -> None:
    exporter = Exporter(app, config, with_process=True)
    port = ExporterPort(exporter, config)
    try:
        await port.start()
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot listen on {config.host!r}, port {config.port}: {words}") from None
    stop = asyncio.Event()
    with signal_handlers(dict.fromkeys((signal.SIGTERM, signal.SIGINT), stop.set)):
        try:
            host = f"[{config.host}]" if ":" in config.host else config.host
            ready(f"http://{host}:{port.port}/metrics")
            exporter.is_waiting = True
            await RedisWait(app.runtime.async_runner, "exporter", stop, is_enabled=config.wait_for_redis).run()
            exporter.is_waiting = False
            await stop.wait()
        finally:
            await port.close()
            await exporter.close()
            await app.aclose()
