"""The store: its version, memory, clients and persistence, the user of this connection, and a cluster's nodes."""

from taskq_fastapi.dashboard.registry import Page
from taskq_fastapi.dashboard.view import Shown, View


async def show(view: View) -> Shown:
    """Show what the store says of itself."""
    row = await view.shared("store", view.dashboard.store)
    return view.page("redis.html", title=row.kind or "Redis", row=row)


PAGE = Page(path="redis", label="Redis", show=show)
