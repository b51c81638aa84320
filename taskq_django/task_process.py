"""Set Django up in a process that runs tasks for a worker: apps are loaded, and with them every `tasks.py`."""

import django


def set_up() -> None:
    """Load the settings and the apps, as `manage.py` does."""
    django.setup()
