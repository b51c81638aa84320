"""A task in a module whose import waits until the file in the variable `SLOW_IMPORT` exists."""

import os
import time
from pathlib import Path

from tests.processes.worker.process_tasks import app

if "SLOW_IMPORT" in os.environ:
    there = Path(os.environ["SLOW_IMPORT"])
    there.with_suffix(".awaited").touch()
    try:
        while not there.exists():
            time.sleep(0.01)
    except BaseException:
        if "STUBBORN_IMPORT" not in os.environ:
            raise
        there.touch()


@app.task(executor="process")
def late(started: str, until: str) -> None:
    Path(started).touch()
    while not Path(until).exists():
        time.sleep(0.01)
