"""Redis itself: version, memory, clients, and the nodes of queues in a cluster."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.app import TaskQ
from taskq_core.cli.render import shown_moment, shown_size, shown_span
from taskq_core.cli.terminal.figures import gauge, shown
from taskq_core.cli.terminal.frames import TextScreen
from taskq_core.cli.terminal.poller import Poller
from taskq_core.doctor import Finding, Level, diagnose_nodes, read_nodes
from taskq_core.views import StoreRow

FINDINGS_S = 60.0
"""Seconds between two checks of the server by the doctor."""
_BAR = 30


@dataclass(frozen=True, slots=True)
class Found:
    """A read of this screen: facts, and the doctor's findings."""

    row: StoreRow
    findings: Sequence[Finding]


class StoreScreen(TextScreen[Found]):
    """Redis."""

    TOP = "redis"
    ABOUT = (
        "Facts about the server, and the problems that taskq doctor finds; in a cluster, facts of one node and the "
        "nodes of each queue. i shows all of INFO."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "all", "All of INFO", tooltip="Show all of INFO, or the most important facts"),
    ]

    def __init__(self, poller: Poller) -> None:
        super().__init__(poller)
        self._findings: Sequence[Finding] | None = None
        self._findings_until = 0.0

    @property
    def heading(self) -> str:
        """Name and version of the server."""
        return "reading…" if self.found is None else f"{self.found.row.kind} {self.found.row.version}"

    async def read(self) -> Found:
        """Read the facts, and once a minute the findings."""
        row = await self.poller.dashboard.store()
        if self._findings is None or time.monotonic() > self._findings_until:
            self._findings = await asyncio.to_thread(_diagnosed, self.poller.taskq)
            self._findings_until = time.monotonic() + FINDINGS_S
        return Found(row, self._findings)

    def draw(self, found: Found) -> None:
        """Show facts and findings."""
        self.query_one("#text", Static).update(self._whole(found))

    def _whole(self, found: Found) -> Text:
        row = found.row
        now, palette = self.poller.now(), self.poller.palette
        limit = f" of {shown_size(row.memory_limit)}" if row.memory_limit else ", no limit"
        pairs = {
            "version": f"{row.kind} {row.version}" if row.version else None,
            "uptime": None if row.uptime is None else shown_span(row.uptime),
            "memory": None if row.memory is None else f"{shown_size(row.memory)}{limit}",
            "memory peak": None if row.memory_peak is None else shown_size(row.memory_peak),
            "fragmentation": None if row.fragmentation is None else f"{row.fragmentation:.2f}",
            "connections": None if row.clients is None else f"{row.clients:,}",
            "replicas": None if row.replicas is None else f"{row.replicas:,}",
            "last save": None if row.saved_at is None else shown_moment(row.saved_at, now=now),
            "changes since": None if row.changes_since_save is None else f"{row.changes_since_save:,}",
            "user": row.user,
            "may change": "no: " + self.poller.refusal
            if self.poller.refusal
            else "yes"
            if self.poller.may_change
            else None,
        }
        text = Text(end="")
        for name, value in pairs.items():
            cell = self.quiet("unknown") if value is None else shown(value)
            text.append(f"{name:<15}", palette.quiet).append_text(cell).append("\n")
        if row.memory is not None and row.memory_limit:
            share = min(1.0, row.memory / row.memory_limit)
            cells = round(_BAR * share)
            colour = palette.bad if share >= 0.95 else palette.warn if share >= 0.8 else palette.good
            text.append(f"{'':<15}").append_text(gauge(palette, _BAR, (cells, colour))).append("\n")
        for finding in found.findings:
            colour = palette.bad if finding.level is Level.RED else palette.warn
            text.append("\n").append(f"{finding.check}  ", f"bold {colour}").append_text(shown(finding.message))
            text.append("\n").append_text(shown(f"-> {finding.advice}", palette.quiet)).append("\n")
        if row.is_cluster:
            text.append("\nCluster\n", f"bold {palette.quiet}")
            text.append_text(shown(f"state {row.cluster.get('cluster_state', '-')}")).append("\n")
            for place in row.places:
                line = f"{place.name}  slot {place.slot}  {', '.join(place.nodes)}"
                text.append_text(shown(line)).append("\n")
        if self.poller.memory.get("info"):
            text.append("\nINFO\n", f"bold {palette.quiet}")
            for name, entry in sorted(row.info.items()):
                text.append_text(shown(f"{name}  ", palette.quiet)).append_text(shown(str(entry))).append("\n")
        return text

    def action_all(self) -> None:
        """Show all of INFO, or the most important facts."""
        self.poller.memory["info"] = "" if self.poller.memory.get("info") else "all"
        self.redraw()


def _diagnosed(taskq: TaskQ) -> Sequence[Finding]:
    """Return the problems that the doctor finds about servers. It writes nothing."""
    return [each for each in diagnose_nodes(read_nodes(taskq)) if each.level is not Level.GREEN]
