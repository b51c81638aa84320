"""A worker process of the soak: `python -m tests.soak.worker <JSON>`, with Redis's URL in `SOAK_URL`."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from taskq_core.worker import Worker, WorkerConfig
from tests.soak import durable, flows, rules  # noqa: F401 - define tasks
from tests.soak.ledger import Ledger
from tests.soak.program import Outcomes, app, open_ledger


class Recoveries(logging.Handler):
    """Records which tasks this worker recovered from others, and which it returned before they began."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.WARNING)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("the worker of a task no longer extends its lease"):
            self._ledger.write("recovered", id=getattr(record, "task_id", ""))
        elif record.msg == "task %s %s; it returns to its queue":
            self._ledger.write("given back", id=getattr(record, "task_id", ""))


def main() -> int:
    given = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(given["folder"])
    ledger = open_ledger(folder, given["who"])
    logging.getLogger("taskq.worker").addHandler(Recoveries(ledger))

    def ready(worker: Any) -> None:
        """Write the port of the health endpoint for the conductor. A rename makes the file complete at once."""
        ready_file = folder / f"{given['who']}-{os.getpid()}.ready"
        ready_file.with_suffix(".new").write_text(str(worker.health_port))
        ready_file.with_suffix(".new").rename(ready_file)

    return Worker(app, WorkerConfig(with_scheduler=False, **given["config"]), listener=Outcomes(ready)).run()


if __name__ == "__main__":
    sys.exit(main())
