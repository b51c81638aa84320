"""Sample data of a web shop for the admin, also with an outbox and periodic tasks in the database."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction

from taskq_django import taskq
from taskq_django.models import PeriodicTask
from tests.browser import scene
from tests.browser.scene import registered_tasks
from tests.redis_server import RedisServer

__all__ = ["SETTINGS", "Scene", "registered_tasks"]

SETTINGS: dict[str, Any] = {
    "ENQUEUE": "outbox",
    "QUEUES": scene.QUEUES,
    "TRACE": {"URL": scene.TRACE_URL},
    "SCHEDULE": {
        "thumbnails": {"task": "images:resize", "cron": "30 2 * * *", "kwargs": {"picture": "new", "widths": [320]}}
    },
}


class Scene(scene.Scene):
    """The sample data in Redis and in the database.

    Args:
        redis: An empty Redis, whose URL is in the setting `TASKQ`.
        settings: Django's settings, which are changed while data is stored.
    """

    def __init__(self, redis: RedisServer, settings: Any) -> None:
        super().__init__(redis, taskq)
        self._settings = settings

    def build(self) -> None:
        """Store all sample data."""
        super().build()
        self._outbox()
        self._periodic()

    def _outbox(self) -> None:
        """Add three tasks to the outbox, as after transactions that were committed while Redis was unavailable."""
        there = self._settings.TASKQ
        away = {"URL": "unix:///nowhere/at/all.sock", "ENQUEUE_TIMEOUT": 0.2}
        self._settings.TASKQ = {**there, "ENQUEUE": "outbox", **away}
        with transaction.atomic():
            for order in (48_731, 48_732, 48_733):
                taskq.remote("mail:receipt", queue="mail", task_id=f"receipt-{order}").delay(order=order)
        self._settings.TASKQ = there

    def _periodic(self) -> None:
        """Add rows to the table. The settings have two more entries."""
        night = datetime.fromtimestamp(self.now_s, UTC).replace(hour=3, minute=0, second=0)
        self.periodic = PeriodicTask.objects.create(
            name="sales of the day",
            task="reports:sales",
            cron="0 4 * * MON-FRI",
            time_zone="Europe/Berlin",
            kwargs={"day": "yesterday", "by": "product"},
            options={"max_retry": 3},
            description="For the meeting at nine.",
        )
        supplier = PeriodicTask.objects.create(
            name="tell the supplier",
            task="hooks:deliver",
            interval=timedelta(minutes=15),
            start_at=night,
            kwargs={"url": "https://hooks.example.com/stock", "event": {}},
        )
        PeriodicTask.objects.create(
            name="sales by shop", task="reports:sales", cron="@monthly", kwargs={"day": "month"}, enabled=False
        )
        PeriodicTask.objects.filter(pk=self.periodic.pk).update(last_run_at=night, total_runs=212)
        PeriodicTask.objects.filter(pk=supplier.pk).update(last_run_at=night + timedelta(minutes=15), total_runs=20_731)
