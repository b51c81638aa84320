"""The pages of the dashboard. Importing this package registers all of them.

To add a page:

1. Write a module here with a function that has `@page(path, label=...)`. It reads with `view.dashboard` and
   `view.inspector`, and returns `view.page(...)`.
2. Write a template that extends `base.html` and fills the block `main`, which is updated while the page is open.
   `ui.html` has tables that scroll, buttons (`ui.button`, `ui.asking`), chips, bars, and links to other pages.
3. Write its changes as functions with `@action(path, ask=..., audited=...)`. `site.py` checks permissions and forged
   forms, writes the audit log, and handles errors.
4. Add the module to `_MODULES`. This is also the order of the navigation.

Raise `BadRequestError` for a value that is not valid. Raise `NotFoundError` or an error of the core for an object that
does not exist.
"""

from importlib import import_module

_MODULES = (
    *("queues", "queue", "tasks", "task", "task_actions", "enqueue", "inbox", "workflows", "workers", "schedules"),
    *("metrics", "types", "redis", "settings"),
)

for _name in _MODULES:
    import_module(f"{__name__}.{_name}")
