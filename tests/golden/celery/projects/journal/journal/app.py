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
app.conf.beat_schedule = {
    "tick every second": {"task": "journal.articles.tick", "schedule": 1.0, "args": ["clock"]},
    "clean up": {
        "task": "journal.articles.clean_up",
        "schedule": 3600.0,
        "kwargs": {"days": 3},
        "options": {"expires": 60},
    },
}
