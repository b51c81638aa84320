"""Run a scheduler for tests: two entries fire every second, and Redis records which process enqueued last."""

import json
import logging
import os
import sys
from typing import Any

import redis

from taskq_core import TaskQ
from taskq_core.scheduler import SchedulerConfig, SchedulerListener, run_scheduler, ticker
from taskq_core.tasks.periodic import Firing, FiringOutcome


class FiringRecorder(SchedulerListener):
    def __init__(self, url: str) -> None:
        self.notes = redis.from_url(url)

    def started(self, scheduler: Any) -> None:
        print("started", flush=True)

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        self.notes.set("test:leader", os.getpid())
        if outcome is not FiringOutcome.ENQUEUED:
            self.notes.rpush("test:odd", f"{firing.entry.id} {firing.at} {outcome}")


def main() -> int:
    settings = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    app = TaskQ(settings["url"])
    ticker.PATIENCE_S = 60.0  # a scheduler frozen in a call then checks the result, even if another took over late

    @app.periodic("* * * * * *", id="cron")
    @app.periodic("@every 1s", id="interval")
    @app.task(name="beat")
    def beat() -> None: ...

    return run_scheduler(app, SchedulerConfig(**settings["config"]), listener=FiringRecorder(settings["url"]))


if __name__ == "__main__":
    sys.exit(main())
