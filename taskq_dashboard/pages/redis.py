"""Show facts about the Redis server, its problems, and the nodes of a cluster."""

import asyncio

from taskq_core.settings.language import marked
from taskq_core.views import Finding, Level, diagnose_nodes, read_nodes
from taskq_dashboard.people import Role
from taskq_dashboard.registry import page
from taskq_dashboard.view import Shown, View


@page("redis", label=marked("Redis"), update_s=30.0)
async def show(view: View) -> Shown:
    """Show facts about the server and its problems."""
    row = await view.dashboard.store()
    findings = await asyncio.to_thread(_findings, view)
    info = row.info if view.user.role is Role.OPERATOR else {}  # INFO contains paths and addresses of the server
    return view.page("redis.html", title=row.kind or "Redis", row=row, info=info, findings=findings)


def _findings(view: View) -> list[Finding]:
    """Return the problems of the servers that `taskq doctor` would report. This writes nothing to Redis."""
    return [each for each in diagnose_nodes(read_nodes(view.services.taskq)) if each.level is not Level.GREEN]
