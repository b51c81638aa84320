"""A scheduler process of the soak: `python -m tests.soak.scheduler <JSON>`. Its URL comes in `SOAK_URL`."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from taskq_core.scheduler import SchedulerConfig, SchedulerListener, run_scheduler
from taskq_core.tasks.periodic import Firing, FiringOutcome
from tests.soak.ledger import Ledger
from tests.soak.program import app, open_books


class Told(SchedulerListener):
    """Writes what it enqueued."""

    def __init__(self, ledger: Ledger, note: Path) -> None:
        self._ledger = ledger
        self._note = note

    def started(self, scheduler: Any) -> None:
        self._note.touch()

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        if outcome is not FiringOutcome.FAILED:
            self._ledger.write(
                "fired", id=firing.task_id, entry=firing.entry.id, at=firing.at.timestamp(), outcome=outcome.value
            )


def main() -> int:
    given = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(given["folder"])
    ledger = open_books(folder, given["who"])
    note = folder / f"{given['who']}-{os.getpid()}.ready"
    return run_scheduler(app, SchedulerConfig(**given["config"]), listener=Told(ledger, note))


if __name__ == "__main__":
    sys.exit(main())
