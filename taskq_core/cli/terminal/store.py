"""Redis itself: its version, memory and clients, and where queues stand in a cluster."""

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
from taskq_core.cli.terminal.frames import TextLook
from taskq_core.cli.terminal.poller import Desk
from taskq_core.doctor import Finding, Level, diagnose_nodes, read_nodes
from taskq_core.views import StoreRow

FINDINGS_S = 60.0
"""How long what is wrong with the server is not looked for anew."""
_BAR = 30


@dataclass(frozen=True, slots=True)
class Found:
    """What the store says, and what is wrong with it."""

    row: StoreRow
    findings: Sequence[Finding]


class StoreLook(TextLook[Found]):
    """The store."""

    TOP = "redis"
    ABOUT = (
        "What the store says of itself, and what taskq doctor finds wrong with the server; of a cluster, one of its "
        "nodes, and where queues stand. i shows all that it says."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "all", "All of INFO", tooltip="Show all that the server says, or the most important"),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._findings: Sequence[Finding] | None = None
        self._findings_until = 0.0

    @property
    def heading(self) -> str:
        """What it is."""
        return "reading…" if self.found is None else f"{self.found.row.kind} {self.found.row.version}"

    async def read(self) -> Found:
        """Read it; what is wrong with it is looked for once a minute."""
        row = await self.desk.dashboard.store()
        if self._findings is None or time.monotonic() > self._findings_until:
            self._findings = await asyncio.to_thread(_diagnosed, self.desk.taskq)
            self._findings_until = time.monotonic() + FINDINGS_S
        return Found(row, self._findings)

    def draw(self, found: Found) -> None:
        """Show it."""
        self.query_one("#text", Static).update(self._whole(found))

    def _whole(self, found: Found) -> Text:
        row = found.row
        now, palette = self.desk.now(), self.desk.palette
        limit = f" of {shown_size(row.memory_limit)}" if row.memory_limit else ", no limit"
        pairs = {
            "version": f"{row.kind} {row.version}" if row.version else None,
            "uptime": None if row.uptime is None else shown_span(row.uptime),
            "memory": None if row.memory is None else f"{shown_size(row.memory)}{limit}",
            "most so far": None if row.memory_peak is None else shown_size(row.memory_peak),
            "fragmentation": None if row.fragmentation is None else f"{row.fragmentation:.2f}",
            "connections": None if row.clients is None else f"{row.clients:,}",
            "replicas": None if row.replicas is None else f"{row.replicas:,}",
            "last save": None if row.saved_at is None else shown_moment(row.saved_at, now=now),
            "changes since": None if row.changes_since_save is None else f"{row.changes_since_save:,}",
            "user": row.user,
            "may change": "no: " + self.desk.refusal if self.desk.refusal else "yes" if self.desk.may_change else None,
        }
        text = Text(end="")
        for name, value in pairs.items():
            told = self.quiet("it does not say") if value is None else shown(value)
            text.append(f"{name:<15}", palette.quiet).append_text(told).append("\n")
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
        if self.desk.memory.get("info"):
            text.append("\nINFO\n", f"bold {palette.quiet}")
            for name, told_of in sorted(row.info.items()):
                text.append_text(shown(f"{name}  ", palette.quiet)).append_text(shown(str(told_of))).append("\n")
        return text

    def action_all(self) -> None:
        """Show all that the server says, or the most important."""
        self.desk.memory["info"] = "" if self.desk.memory.get("info") else "all"
        self.redraw()


def _diagnosed(taskq: TaskQ) -> Sequence[Finding]:
    """Return what doctor finds wrong with the servers, without trying what would be a write."""
    return [each for each in diagnose_nodes(read_nodes(taskq)) if each.level is not Level.GREEN]
