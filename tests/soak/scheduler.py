"""A scheduler process of the soak: `python -m tests.soak.scheduler <JSON>`, with Redis's URL in `SOAK_URL`."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from taskq_core.scheduler import SchedulerConfig, SchedulerListener, run_scheduler
from taskq_core.tasks.periodic import Firing, FiringOutcome
from tests.soak.ledger import Ledger
from tests.soak.program import app, open_ledger


class FiringRecorder(SchedulerListener):
    """Records the periodic tasks that the scheduler enqueued."""

    def __init__(self, ledger: Ledger, ready_file: Path) -> None:
        self._ledger = ledger
        self._ready_file = ready_file

    def started(self, scheduler: Any) -> None:
        self._ready_file.touch()

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        if outcome is not FiringOutcome.FAILED:
            self._ledger.write(
                "fired", id=firing.task_id, entry=firing.entry.id, at=firing.at.timestamp(), outcome=outcome.value
            )


def main() -> int:
    given = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(given["folder"])
    ledger = open_ledger(folder, given["who"])
    ready_file = folder / f"{given['who']}-{os.getpid()}.ready"
    return run_scheduler(app, SchedulerConfig(**given["config"]), listener=FiringRecorder(ledger, ready_file))


if __name__ == "__main__":
    sys.exit(main())
