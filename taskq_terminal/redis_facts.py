"""The screen about the Redis server: version, memory, clients, and the nodes of queues in a cluster."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from taskq_core import TaskQ
from taskq_core.cli.plugin import store_facts
from taskq_core.views import Finding, Level, StoreRow, diagnose_nodes, read_nodes
from taskq_terminal.figures import shown
from taskq_terminal.frames import TextScreen
from taskq_terminal.state import DashState

FINDINGS_S = 60.0
"""Seconds between two checks of the server by the doctor."""


@dataclass(frozen=True, slots=True)
class Found:
    """The data that `read` of this screen returns: facts, and the doctor's findings."""

    row: StoreRow
    findings: Sequence[Finding]


class RedisScreen(TextScreen[Found]):
    """Facts about the Redis server, and its problems."""

    TOP = "redis"
    HELP = (
        "Facts about the server, and the problems that taskq doctor finds; in a cluster, facts of one node and the "
        "nodes of each queue. i shows all of INFO."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "all", "All of INFO", tooltip="or the most important facts"),
    ]

    def __init__(self, shared: DashState) -> None:
        super().__init__(shared)
        self._shows_all = False
        self._findings: Sequence[Finding] = ()
        self._findings_until = 0.0

    @property
    def heading(self) -> str:
        """Name and version of the server."""
        return "reading…" if self.found is None else f"{self.found.row.kind} {self.found.row.version}"

    async def read(self) -> Found:
        """Read the facts about Redis, and every `FINDINGS_S` seconds the findings of the doctor."""
        row = await self.shared.dashboard.store()
        if time.monotonic() > self._findings_until:
            self._findings = await asyncio.to_thread(_diagnosed, self.shared.taskq)
            self._findings_until = time.monotonic() + FINDINGS_S
        return Found(row, self._findings)

    def text(self, found: Found) -> Text:
        """Return the facts about Redis and the findings of the doctor as text."""
        row, shared, palette = found.row, self.shared, self.palette
        may_change = f"no: {shared.refusal}" if shared.refusal else "yes"
        text = Text(end="")
        self.pairs(text, {**store_facts(row, shared.now()), "may change": may_change})
        for finding in found.findings:
            colour = palette["bad" if finding.level is Level.RED else "warn"]
            text.append(f"\n{finding.check}  ", f"bold {colour}").append_text(shown(finding.message))
            text.append("\n").append_text(shown(f"-> {finding.advice}", palette["quiet"])).append("\n")
        if row.is_cluster:
            self.section(text, "Cluster")
            text.append_text(shown(f"state {row.cluster.get('cluster_state', '-')}")).append("\n")
            places = {place.name: f"slot {place.slot}  {', '.join(place.nodes)}" for place in row.places}
            self.pairs(text, places)
        if self._shows_all:
            self.section(text, "INFO")
            self.pairs(text, {name: str(entry) for name, entry in sorted(row.info.items())})
        return text

    def action_all(self) -> None:
        """Switch between the most important facts and all fields of INFO."""
        self._shows_all = not self._shows_all
        self.redraw()


def _diagnosed(taskq: TaskQ) -> Sequence[Finding]:
    """Return the problems of Redis servers that `taskq doctor` finds. Nothing is repaired."""
    return [each for each in diagnose_nodes(read_nodes(taskq)) if each.level is not Level.GREEN]
