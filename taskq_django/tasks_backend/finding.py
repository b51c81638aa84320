"""Find a task of Django's framework by its name, which says where it stands.

Workers import the `tasks` modules of the installed apps. A task that stands elsewhere, or that was made for another
backend and enqueued with `using(backend=...)`, is found here when the first call of it arrives. The name comes out of
Redis, so nothing is imported but modules of installed apps, and nothing runs but what the framework's `task` has made.
"""

import logging
import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from taskq_django.app import taskq
from taskq_django.tasks_backend import framework
from taskq_django.tasks_backend.framework import AnyTask
from taskq_django.tasks_backend.running import BackendTask

logger = logging.getLogger("taskq.django")


def find_by_name(name: str) -> BackendTask | None:
    """Return the task of the name `module.function`, registered by now; None if there is none."""
    module_name, _, attribute = name.rpartition(".")
    module = sys.modules.get(module_name) or _import(module_name)
    found = getattr(module, attribute, None)
    if not isinstance(found, framework.Task):
        return None
    known = taskq.tasks.get(name)
    if known is None:
        _make_known(found)
        known = taskq.tasks.get(name)
    return known if isinstance(known, BackendTask) else None


def _import(name: str) -> ModuleType | None:
    """Import a module of an installed app."""
    if not name or apps.get_containing_app_config(name) is None:
        return None
    try:
        return import_module(name)
    except Exception:  # whatever it is, it is this module's: the worker goes on, and the task fails as an unknown one
        logger.exception("module %s, in which a task should be, cannot be imported", name)
        return None


def _make_known(task: AnyTask) -> None:
    """Register a task that was made for another backend, by making a copy for the first of ours."""
    from taskq_django.tasks_backend.backend import TaskQBackend  # which finds tasks by name, too

    backends = framework.backends()
    for alias in backends:
        with suppress(ImproperlyConfigured):  # another's mistake, of which a system check tells
            backend = backends[alias]
            if isinstance(backend, TaskQBackend):
                backend.adopt(task)
                return
