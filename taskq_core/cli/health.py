"""`taskq health`: check whether the queues work, for the probe of a container or a deploy script."""

from typing import Any

import click

from taskq_core.cli.base import FAILED, Command
from taskq_core.cli.render import Output
from taskq_core.cli.session import Session
from taskq_core.doctor.probing import probe_port, probe_queues

TIMEOUT_S = 5.0


@click.command(
    "health",
    cls=Command,
    epilog="""\
examples:
  %(prog)s
      check that the queues of the settings work
  %(prog)s --worker
      also check that a worker of this machine or container takes tasks
  %(prog)s --port 8090
      check the worker that was started with --health-port 8090

exit status:
  0  ready
  1  not ready; the output says why
""",
)
@click.option("--worker", is_flag=True, help="also require a running worker on this machine")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    help="ask the worker or scheduler with this --health-port, instead of Redis",
)
@click.option("--host", metavar="ADDRESS", help="address for --port (default: 127.0.0.1)")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=TIMEOUT_S,
    metavar="SECONDS",
    help=f"maximum time in seconds (default: {TIMEOUT_S:g})",
)
@click.pass_obj
def health(session: Session, worker: bool, port: int | None, host: str | None, timeout: float) -> int:
    """Check whether the queues work now. The exit status is 0 or 1.

    The command runs a script on each queue of the settings. The script fails if keys have a wrong type or Redis refuses
    writes. Nothing is changed.
    """
    if port is not None and worker:
        raise click.UsageError(
            "give either --port, which asks a process, or --worker, which asks Redis", click.get_current_context()
        )
    if port is None and host is not None:
        raise click.UsageError("--host needs --port", click.get_current_context())
    if port is not None:
        is_ready, document = probe_port(host or "127.0.0.1", port, timeout_s=timeout)
    else:
        found = probe_queues(session.app, with_worker=worker, timeout_s=timeout)
        is_ready, document = found.is_ready, found.document()
    if session.output.as_json:
        session.output.json(document)
    else:
        _show(session.output, document)
    return 0 if is_ready else FAILED


def _show(out: Output, document: dict[str, Any]) -> None:
    reason = document.get("reason")
    out.line(f"{document['status']}: {reason}" if reason else str(document["status"]))
    for name, queue in document.get("queues", {}).items():
        out.line(f"  {name}: {queue['pending']} pending" if queue.get("pending") is not None else f"  {name}")
    if document.get("workers") is not None:
        out.line(f"  workers of this machine: {document['workers']}")
