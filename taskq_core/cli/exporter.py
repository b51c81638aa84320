"""`taskq exporter`: what Prometheus scrapes."""

import importlib
from pathlib import Path
from typing import Any

import click

from taskq_core.cli.base import Command
from taskq_core.cli.params import DURATION
from taskq_core.cli.running import set_up_log
from taskq_core.cli.session import Session
from taskq_core.errors import ConfigurationError

_MISSING = "taskq exporter needs packages that are not installed: pip install 'taskq-asynq[exporter]'"
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    "exporter",
    cls=Command,
    epilog="""\
examples:
  %(prog)s
      at http://127.0.0.1:9876/metrics, for a Prometheus on this machine
  %(prog)s --host 0.0.0.0 --auth-file people.txt --tls-cert cert.pem --tls-key key.pem
      for a Prometheus elsewhere, which names itself as a line of people.txt (name:password) says

signals:
  SIGTERM, SIGINT (Ctrl-C)   stop

exit status:
  0  it stopped when told to
  1  it could not start; the message says why
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="address to listen at")
@click.option("--port", default=9876, show_default=True, type=click.IntRange(0, 65535), metavar="N", help="port")
@click.option("--timeout", default=5.0, type=DURATION, help="longest that Redis may take (default: 5s)")
@click.option(
    "--max-queues", default=200, show_default=True, type=click.IntRange(1), metavar="N", help="queues told apart"
)
@click.option(
    "--max-types", default=200, show_default=True, type=click.IntRange(0), metavar="N", help="task types told apart"
)
@click.option("--auth-file", type=_FILE, metavar="FILE", help="who may scrape: a line name:password each")
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="certificate to speak TLS with (PEM)")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="key of the certificate (PEM)")
@click.option("--open", "is_open", is_flag=True, help="let everybody in who reaches the port, from other machines too")
@click.pass_obj
def exporter(session: Session, /, **options: Any) -> None:
    """Serve the metrics of all queues to Prometheus until it is stopped."""
    room = _room()
    config = room.ExporterConfig(**options)
    set_up_log(1)
    room.run_exporter(
        session.app, config, ready=lambda address: session.output.line(f"Metrics are at {address} (Ctrl-C ends it).")
    )


def _room() -> Any:
    """Return the exporter's room, which needs a package of an extra."""
    try:
        return importlib.import_module("taskq_core.exporter")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prometheus_client":
            raise
        raise ConfigurationError(_MISSING) from None
