"""A shop as a Django project. Orders are rows of Django's model `Group`, so that no other model is needed."""

from typing import Any

import django
from django.conf import settings


class Shop:
    """A Django project with one database."""

    def __init__(self, plan: dict[str, Any]) -> None:
        settings.configure(
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "taskq_django"],
            DATABASES={"default": plan["database"]},
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            USE_TZ=True,
            TASKQ={
                "URL": plan["redis"],
                "ENQUEUE": "outbox",
                "ENQUEUE_TIMEOUT": plan.get("patience_s", 30),
                "AUTODISCOVER": False,
            },
        )
        django.setup()
        from taskq_django import taskq
        from taskq_django.outbox import DatabaseTable

        self.app = taskq
        self.table = DatabaseTable("default")
        self.writes_row = (DatabaseTable, "write")

    def migrate(self) -> None:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)

    def place(self, order: str, *, call: Any = None, workflow: Any = None) -> None:
        """Store an order and enqueue its task or workflow in the same transaction."""
        from django.contrib.auth.models import Group
        from django.db import transaction

        with transaction.atomic():
            Group.objects.create(name=order)
            if workflow is None:
                self.app.enqueue(call)
            else:
                workflow.delay()
