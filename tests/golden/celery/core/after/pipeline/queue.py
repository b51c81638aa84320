import os

from taskq_core import TaskQ

taskq = TaskQ(
    url=os.environ["PIPELINE_REDIS"],
    concurrency=2,
    defaults={"retention": 600},
    schedule={
        "count": {"task": "pipeline.work.count", "cron": "0,30 */2 * * *", "kwargs": {"text": "a b"}},
        "often": {"task": "pipeline.work.count", "cron": "@every 90s", "kwargs": {"text": "c"}},
    },
)
