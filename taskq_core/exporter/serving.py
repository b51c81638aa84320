"""An exporter on its own port.

Without a login the port is open only to this machine, and requests must name this machine in `Host`.
"""

import asyncio
import base64
import binascii
import hmac
import logging
import math
import signal
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from taskq_core.app import TaskQ
from taskq_core.errors import ConfigurationError
from taskq_core.exporter.config import ExporterConfig
from taskq_core.exporter.exporter import Exporter
from taskq_core.service.port import Answer, Port, Request, names_this_machine, text

logger = logging.getLogger("taskq.exporter")

_HOME = "taskq exporter: metrics at /metrics, health checks at /livez and /readyz (which reads Redis)"
_WAIT_HEADER = "x-prometheus-scrape-timeout-seconds"


class ExporterPort(Port):
    """Serves `/metrics`, `/livez` and `/readyz`.

    Args:
        exporter: The exporter.
        config: The address, and who may scrape.

    Raises:
        ConfigurationError: A file cannot be read, or its content is invalid.
    """

    def __init__(self, exporter: Exporter, config: ExporterConfig) -> None:
        super().__init__(
            self._tell, config.host, config.port, refuse=lambda status, words: text(words, status), tls=_tls(config)
        )
        self._exporter = exporter
        self._auth_file = config.auth_file
        self._names_this_machine = config.auth_file is None and not config.is_open
        if config.auth_file is not None:
            read_people(config.auth_file)

    async def _tell(self, request: Request) -> Answer:
        if request.path == "/livez":
            return text("alive")
        if request.path == "/readyz":
            if await self._exporter.read() is not None:
                return text("ready")
            return text("Redis does not answer", HTTPStatus.SERVICE_UNAVAILABLE)
        if self._names_this_machine and not names_this_machine(request.headers.get("host", "")):
            return text("use localhost or a loopback address such as 127.0.0.1", HTTPStatus.FORBIDDEN)
        if self._auth_file is not None and not self._is_let_in(self._auth_file, request):
            return text("login required", HTTPStatus.UNAUTHORIZED, WWW_Authenticate='Basic realm="taskq exporter"')
        if request.path == "/metrics":
            return await self._metrics(request.headers)
        return text(_HOME, HTTPStatus.OK if request.path == "/" else HTTPStatus.NOT_FOUND)

    async def _metrics(self, headers: Mapping[str, str]) -> Answer:
        told = await self._exporter.expose(
            accept=headers.get("accept", ""),
            accept_encoding=headers.get("accept-encoding", ""),
            wait_s=wait_s(headers.get(_WAIT_HEADER, "")),
        )
        more = dict(told.headers)
        return Answer(body=told.body, content_type=more.pop("Content-Type"), headers=more)

    def _is_let_in(self, path: Path, request: Request) -> bool:
        try:
            people = read_people(path)
        except ConfigurationError as error:
            logger.error("all scrapes are refused: %s", error)
            return False
        given = _credentials(request.headers.get("authorization", ""))
        # Compare with all users, in constant time.
        return sum(hmac.compare_digest(given, each) for each in people) > 0


def wait_s(said: str) -> float | None:
    """Return the timeout in a scraper's header, None without a valid one."""
    try:
        number = float(said)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def read_people(path: Path) -> list[bytes]:
    """Return the users who may scrape, as `name:password`.

    Raises:
        ConfigurationError: The file cannot be read, or contains no user.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"the auth file {str(path)!r} cannot be read: {error.strerror}") from None
    people = [line for line in lines if line.strip() and not line.startswith(b"#")]
    for number, line in enumerate(people, start=1):
        name, colon, password = line.partition(b":")
        if not (name and colon and password):
            raise ConfigurationError(f"entry {number} of the auth file {str(path)!r} is not name:password")
    if not people:
        raise ConfigurationError(f"the auth file {str(path)!r} contains no user; write name:password")
    return people


def _credentials(header: str) -> bytes:
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return b""
    try:
        return base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _tls(config: ExporterConfig) -> ssl.SSLContext | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except OSError as error:  # also raised for an invalid certificate
        raise ConfigurationError(
            f"the certificate {str(config.tls_cert)!r} and its key are not usable: {error}"
        ) from None
    return context


def run_exporter(app: TaskQ, config: ExporterConfig, *, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve the metrics of an application until SIGTERM or SIGINT, then close its connections.

    Args:
        app: The queue application.
        config: The configuration.
        ready: Called with the URL of the metrics as soon as it listens.

    Raises:
        ConfigurationError: A file is not usable, or it cannot listen on the address.
    """
    asyncio.run(_serve(app, config, ready))


async def _serve(app: TaskQ, config: ExporterConfig, ready: Callable[[str], None]) -> None:
    exporter = Exporter(app, config, tells_process=True)
    port = ExporterPort(exporter, config)
    try:
        await port.start()
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot listen on {config.host!r}, port {config.port}: {words}") from None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        host = f"[{config.host}]" if ":" in config.host else config.host
        ready(f"http{'s' if config.tls_cert else ''}://{host}:{port.port}/metrics")
        await stop.wait()
    finally:
        await port.close()
        await exporter.close()
        await app.aclose()
