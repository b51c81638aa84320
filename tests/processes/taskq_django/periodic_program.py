"""A Django process with a scheduler that reads periodic tasks from its database: `python -m ... JSON`.

The JSON has the database, the Redis, and optionally a point at which the process kills itself. The process records in
Redis that it enqueued last.
"""

import json
import logging
import os
import signal
import sys
from typing import Any

import django
import redis
from django.conf import settings

from taskq_core.scheduler import SchedulerConfig, SchedulerListener, follower, leader, run_scheduler
from taskq_core.scheduler.follower import Follower
from taskq_core.tasks.periodic import Firing, FiringOutcome

POINTS = ("enqueued and not counted", "counted and not taken away")


class FiringRecorder(SchedulerListener):
    def __init__(self, url: str) -> None:
        self.notes = redis.from_url(url)

    def started(self, scheduler: Any) -> None:
        print("started", flush=True)

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        self.notes.set("test:leader", os.getpid())


def die_at(point: str) -> None:
    """Make this process kill itself when it reaches a point."""
    inner = Follower._record

    async def record(self: Follower, ran: Any) -> bool:
        if point == POINTS[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        await inner(self, ran)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is dead")

    Follower._record = record  # type: ignore[method-assign]


def main() -> int:
    plan = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "taskq_django"],
        DATABASES={"default": plan["database"]},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        TASKQ={"URL": plan["redis"], "AUTODISCOVER": False},
    )
    django.setup()
    from taskq_django import task, taskq

    @task(name="beat")
    def beat(row: str) -> None: ...

    (table,) = taskq.timetable.tables
    table.every_s = 0.2
    follower.LONGEST_PAUSE_S = 0.2  # also if reading the table is slow
    # A busy machine may need longer, and these tests do not count later reports.
    follower.FINISH_S = leader.ENDING_S = 30.0
    if plan.get("point"):
        die_at(plan["point"])
    return run_scheduler(taskq, SchedulerConfig(leader_lease=plan["lease_s"]), listener=FiringRecorder(plan["redis"]))


if __name__ == "__main__":
    sys.exit(main())
