"""Look at Redis for `check --deploy`: is it there, and does it keep what it is given?

It never takes longer than `CHECK_S`, whatever Redis, the network or a name server does, and changes nothing.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's name for it

from taskq_core import Settings, TaskQ
from taskq_core.broker.connection import parse_url
from taskq_core.doctor import Level, NodeFacts, check_eviction, read_nodes
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
    look = _Look(lambda: _nodes(settings))
    look.join(CHECK_S)
    if look.is_alive():
        return [_unreachable(f"Redis did not answer within {CHECK_S:g} seconds")]
    if look.error is not None:
        return [_unreachable(f"Redis cannot be used: {look.error}")]
    return [
        Warning(
            f"Redis at {finding.subject}: {finding.message}.",
            hint=f"{finding.advice.capitalize()}: a queue needs a server that refuses what it cannot keep.",
            id="taskq.W008",
        )
        for node in look.found
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


class _Look(threading.Thread):
    """Asks in a thread, which is left behind if the answer takes too long: looking up a name knows no timeout."""

    def __init__(self, ask: Callable[[], list[NodeFacts]]) -> None:
        super().__init__(name="taskq check", daemon=True)
        self._ask = ask
        self.found: list[NodeFacts] = []
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Ask."""
        try:
            self.found = self._ask()
        except Exception as error:  # whatever it is, it is told: a check does not raise
            self.error = error
