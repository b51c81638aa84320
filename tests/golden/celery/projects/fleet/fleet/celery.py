import os

from celery import Celery
from celery.schedules import crontab

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings.base")

app = Celery("fleet")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_default_queue = "fleet"
app.autodiscover_tasks()


@app.on_after_configure.connect
def set_up(sender, **kwargs):
    from trucks.tasks import inspect_truck, wash

    sender.add_periodic_task(1.0, wash.s("every truck"), name="wash")
    sender.add_periodic_task(crontab(hour=4, minute=0), inspect_truck.s(7))
