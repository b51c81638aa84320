"""Show a queue: its state, its daily counters, the types of its tasks, and its tasks by state."""

from taskq_core.views import DAYS_CHOICES, STATES
from taskq_dashboard.registry import page
from taskq_dashboard.task_lists import of_queue
from taskq_dashboard.view import Shown, View


@page("queue")
async def show(view: View) -> Shown:
    """Show one queue."""
    name, state = view.query.need("name"), view.query.choice("state", STATES)
    days = view.query.number("days", DAYS_CHOICES[0], low=1, high=90)
    detail = await view.dashboard.queue(name, days=days)
    names = await view.inspector.queues()
    return view.page(
        "queue.html",
        title=name,
        detail=detail,
        row=detail.queue,
        names=names,
        **{"state": state, **await of_queue(view, detail.queue, state)},
        days=days,
        days_choices=(1, *DAYS_CHOICES),
    )
