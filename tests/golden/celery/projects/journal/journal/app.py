import os

from celery import Celery
from kombu import Queue

app = Celery(
    "journal",
    broker=os.environ.get("BROKER", "redis://localhost:6379/0"),
    backend="cache+memory://",
    include=["journal.articles", "journal.print"],
)
app.conf.update(timezone="Europe/Paris", result_expires=3600, task_default_queue="desk")
app.conf.task_queues = (Queue("desk"), Queue("press"))
app.conf.task_routes = {"journal.print.*": {"queue": "press"}}


@app.on_after_finalize.connect
def set_up_periodic_tasks(sender, **kwargs):
    from journal.articles import clean_up, tick

    sender.add_periodic_task(1.0, tick.s("clock"), name="tick every second")
    sender.add_periodic_task(3600.0, clean_up.s(days=3), name="clean up", expires=60)
