import os

# TODO taskq: Celery is still imported from the package celery: the settings and the TaskQ replace the app
from celery import Celery
from celery.schedules import crontab

app = Celery("pipeline", broker=os.environ["PIPELINE_REDIS"], backend="rpc://")
app.conf.update(task_acks_late=True, result_expires=600, worker_concurrency=2)
app.conf.task_queues = None
app.conf.beat_schedule = {
    "count": {"task": "pipeline.work.count", "schedule": crontab(minute="0,30", hour="*/2"), "args": ["a b"]},
    "often": {"task": "pipeline.work.count", "schedule": 90.0, "kwargs": {"text": "c"}},
}
