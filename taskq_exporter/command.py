"""`taskq exporter`: serve metrics for Prometheus."""

import importlib
from typing import Any

import click

from taskq_core.cli.plugin import DURATION, NO_WAIT_HELP, Command, Session, set_up_log
from taskq_core.errors import ConfigurationError

_MISSING = "taskq exporter needs packages that are not installed: pip install 'taskq-asynq[exporter]'"


@click.command(
    "exporter",
    cls=Command,
    epilog="""\
examples:
  %(prog)s
      at http://127.0.0.1:9876/metrics, for a Prometheus on this machine
  %(prog)s --host 0.0.0.0 --open
      for a Prometheus on another machine, where the network lets only Prometheus through

signals:
  SIGTERM, SIGINT (Ctrl-C)   stop

exit status:
  0  the exporter was stopped
  1  the exporter could not start; the message gives the reason
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="address to listen on")
@click.option(
    "--port",
    default=9876,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="N",
    help="port to listen on; 0 takes a free one",
)
@click.option("--timeout", default=5.0, type=DURATION, help="maximum time for reading Redis (default: 5s)")
@click.option(
    "--max-queues",
    default=200,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="maximum number of queues with metrics",
)
@click.option(
    "--max-types",
    default=200,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="maximum number of task types with metrics",
)
@click.option("--open", "is_open", is_flag=True, help="allow scraping from other machines; there is no login")
@click.option("--no-wait", is_flag=True, help=NO_WAIT_HELP)
@click.pass_obj
def exporter(session: Session, /, no_wait: bool, **options: Any) -> None:
    """Serve Prometheus metrics of all queues until stopped."""
    room = _room()
    config = room.ExporterConfig(wait_for_redis=not no_wait, **options)
    set_up_log(1)
    room.run_exporter(
        session.app, config, ready=lambda address: session.output.line(f"Metrics are at {address} (Ctrl-C ends it).")
    )


def _room() -> Any:
    """Import the package `taskq_exporter`, which needs the extra `exporter`, and return it."""
    try:
        return importlib.import_module("taskq_exporter")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prometheus_client":
            raise
        raise ConfigurationError(_MISSING) from None
