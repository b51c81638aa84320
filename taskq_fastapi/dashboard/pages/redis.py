"""The store: its version, memory, clients and persistence, what is wrong with it, and a cluster's nodes."""

import asyncio

from taskq_core.doctor import Finding, Level, diagnose_nodes, read_nodes
from taskq_core.settings.language import marked
from taskq_fastapi.dashboard.people import Role
from taskq_fastapi.dashboard.registry import page
from taskq_fastapi.dashboard.view import Shown, View


@page("redis", label=marked("Redis"), update_s=60.0)
async def show(view: View) -> Shown:
    """Show what the store says of itself, and what is wrong with it."""
    row = await view.dashboard.store()
    findings = await asyncio.to_thread(_findings, view)
    info = row.info if view.user.role is Role.OPERATOR else {}  # it names paths, addresses and hosts of the server
    return view.page("redis.html", title=row.kind or "Redis", row=row, info=info, findings=findings)


def _findings(view: View) -> list[Finding]:
    """Return what doctor finds of the servers, without trying what would be a write."""
    return [each for each in diagnose_nodes(read_nodes(view.services.taskq)) if each.level is not Level.GREEN]
