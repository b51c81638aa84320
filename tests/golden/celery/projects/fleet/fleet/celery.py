import os

from celery import Celery
from celery.schedules import crontab

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings.base")

app = Celery("fleet")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_default_queue = "fleet"
app.autodiscover_tasks()
app.conf.beat_schedule = {
    "wash": {"task": "trucks.tasks.wash", "schedule": 1.0, "args": ("every truck",)},
    "inspect": {"task": "trucks.tasks.inspect_truck", "schedule": crontab(hour=4, minute=0), "args": (7,)},
}
