"""Look at Redis for `check --deploy`: is it there, and does it keep what it is given?

It never takes longer than `CHECK_S`, whatever Redis, the network or a name server does, and changes nothing.
"""

from dataclasses import replace

from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's name for it

from taskq_core import Settings, TaskQ
from taskq_core.broker.connection import parse_url
from taskq_core.doctor import Level, NodeFacts, check_eviction, read_nodes, within
from taskq_core.settings import EnqueueMode

CHECK_S = 5.0
"""Most seconds Redis gets to answer."""


def check_server(settings: Settings) -> list[CheckMessage]:
    """Tell when Redis does not answer, or drops tasks when its memory is full.

    Args:
        settings: Usable settings. A private server is not started, and eager tasks need none.
    """
    if settings.eager or (isinstance(settings.url, str) and parse_url(settings.url).kind == "embedded"):
        return []
    try:
        nodes = within(CHECK_S, lambda: _nodes(settings))
    except TimeoutError:
        return [_unreachable(f"Redis did not answer within {CHECK_S:g} seconds")]
    except Exception as error:  # whatever it is, it is told: a check does not raise
        return [_unreachable(f"Redis cannot be used: {str(error).rstrip('.')}")]
    return [
        Warning(
            f"Redis at {finding.subject}: {finding.message}.",
            hint=f"{finding.advice.capitalize()}: a queue needs a server that refuses what it cannot keep.",
            id="taskq.W008",
        )
        for node in nodes
        for finding in check_eviction(node)
        if finding.level is Level.RED
    ]


def _unreachable(problem: str) -> CheckMessage:
    return Warning(
        f"{problem}.",
        hint="Check TASKQ['URL'] and the server; `manage.py taskq doctor` tells more. Silence it where this command "
        "runs without Redis on purpose.",
        id="taskq.W007",
    )


def _nodes(settings: Settings) -> list[NodeFacts]:
    app = TaskQ(settings=replace(settings, enqueue=EnqueueMode.IMMEDIATE))  # nothing of the project's own is opened
    try:
        return read_nodes(app)
    finally:
        app.close()
