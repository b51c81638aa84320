"""Find a task of Django's framework that was made for another backend and enqueued with `using(backend=...)`.

A task of our own backend registers itself when its module is imported. A task of another backend does not, so the
worker looks for it in the modules that `AUTODISCOVER` has imported. The name comes from Redis: it is compared with the
names of the tasks in these modules. It never imports a module and never reads an attribute.
"""

from contextlib import suppress

from django.core.exceptions import ImproperlyConfigured

from taskq_django.app import taskq
from taskq_django.discovery import discovered_modules
from taskq_django.tasks_backend import framework
from taskq_django.tasks_backend.backend import TaskQBackend
from taskq_django.tasks_backend.framework import AnyTask
from taskq_django.tasks_backend.running import BackendTask


def find_by_name(name: str) -> BackendTask | None:
    """Find the task `module.function` in the discovered modules, register it and return it, or return None."""
    for module in discovered_modules():
        for value in list(vars(module).values()):
            if isinstance(value, framework.Task) and value.module_path == name:
                _register(value)
                known = taskq.tasks.get(name)
                return known if isinstance(known, BackendTask) else None
    return None


def _register(task: AnyTask) -> None:
    """Register a task of another backend, as a copy for the first `TaskQBackend` in `TASKS`."""
    backends = framework.backends()
    for alias in backends:
        with suppress(ImproperlyConfigured):  # this backend is misconfigured, which a system check reports
            backend = backends[alias]
            if isinstance(backend, TaskQBackend):
                backend.adopt(task)
                return
