"""The pages and the actions of the dashboard, each named once.

To add a page:

1. a module here with its `Page`: a function that reads with `view.shared(...)` and returns `view.page(...)`;
2. a template that extends `base.html` and fills the block `main`, which is what is kept up to date. `ui.html` has
   tables that scroll, buttons (`ui.button`, `ui.asking`), chips, bars, charts, links to other pages of a list;
3. what is done on it, as `Action`: a function that does it, one that asks before if it loses something, and the names
   of the fields that are noted. Who may, forgery, the log, errors and the way back are seen to in `site.py`;
4. a line in each tuple below. A page with a label stands in the navigation, in this order.

What is not usable in an address is a `BadRequestError`, what is not there a `NotFoundError` or one of the core's.
"""

from taskq_fastapi.dashboard.pages import (
    enqueue,
    metrics,
    queue,
    queues,
    redis,
    schedules,
    settings,
    task,
    task_actions,
    tasks,
    types,
    workers,
    workflows,
)
from taskq_fastapi.dashboard.registry import Action, Page

PAGES: tuple[Page, ...] = (
    queues.PAGE,
    queue.PAGE,
    tasks.PAGE,
    tasks.FAILED_PAGE,
    task.PAGE,
    task.EDIT,
    enqueue.PAGE,
    workflows.PAGE,
    workflows.WORKFLOW,
    workflows.STEP,
    workers.PAGE,
    schedules.PAGE,
    schedules.ENTRY,
    metrics.PAGE,
    types.PAGE,
    redis.PAGE,
    settings.PAGE,
)
ACTIONS: tuple[Action, ...] = (
    *queues.ACTIONS,
    *task_actions.ACTIONS,
    *task.ACTIONS,
    *enqueue.ACTIONS,
    *schedules.ACTIONS,
    *workers.ACTIONS,
    *workflows.ACTIONS,
    settings.SAVE,
)
