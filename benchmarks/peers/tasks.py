"""Define the tasks of every Python adapter, and the parameters of the adapters. Needs only Python."""

import asyncio
import json
import os
import time
from typing import Any

from benchmarks.peers.ledger import Ledger

TEXT = "some text"
"""The second argument of every task, after its number."""
IO_S = 0.01

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:1/0")
SETTING: dict[str, Any] = json.loads(os.environ.get("BENCH_SETTING", "{}"))
"""`Setting.values` of the setting that is measured."""
CONCURRENCY = int(SETTING.get("concurrency", 10))

_path = os.environ.get("BENCH_LEDGER")
LEDGER = Ledger(_path, os.getppid if SETTING.get("forks") else os.getpid) if _path else None


def ran(number: int, text: str) -> None:
    """Do nothing except record the run in the ledger."""
    assert LEDGER is not None
    LEDGER.ran(number)


async def waited(number: int, text: str) -> None:
    """Wait for 10 ms, like a task that waits for another server."""
    assert LEDGER is not None
    LEDGER.began(number)
    await asyncio.sleep(IO_S)
    LEDGER.ended(number)


def slept(number: int, text: str) -> None:
    """Block a thread for 10 ms, as a call to another server would."""
    assert LEDGER is not None
    LEDGER.began(number)
    time.sleep(IO_S)
    LEDGER.ended(number)
