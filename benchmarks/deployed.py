"""Measure workers as users start them: processes of `taskq worker`, measured from outside.

These measurements need the server and the placement, so they run in the process of the harness. A ledger proves that
each task ran once.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.cases import Runner, left_alone
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.environments import Environment
from benchmarks.peers.ledger import Ledger
from benchmarks.peers.processes import Workers
from benchmarks.placement import Placement
from benchmarks.session import CaseError, Found, run_apart
from taskq_core import TaskQ
from tests.redis_server import RedisServer

_PATIENCE_S = 60.0
_LOOK_S = 0.001
_SETTLE_S = 16.0
"""Seconds after which all services have done their first pass. The search for damage begins after ten seconds."""


def drain_by(server: RedisServer, placement: Placement, *, processes: int, count: int) -> Found:
    """Drain a queue with several processes of 50 coroutines. Measure once all of them have started."""
    peer = next(peer for peer in PEERS if peer.name == "taskq")
    usual = next(each for each in peer.settings if each.group == "50")
    setting = replace(usual, copies=processes, enqueues=False)
    environment = Environment(program=sys.executable, variables={}, version="this")
    return Runner(peer=peer, setting=setting, environment=environment).drain(server, placement, count=count)


def idle_worker(server: RedisServer, placement: Placement, *, seconds: float) -> Found:
    """Start one worker with one waiting task, then leave it idle. Measure its resources and its requests to Redis."""
    command = [sys.executable, "-m", "taskq_core", "worker", "benchmarks.peers.taskq:app", "--verbosity", "0"]
    with tempfile.TemporaryDirectory(prefix="taskq-bench-") as folder:
        ledger = Ledger.create(Path(folder) / "ledger", 1)
        taskq = TaskQ(server.url, enqueue_timeout=_PATIENCE_S)
        taskq.remote("noop").delay(number=0, text="some text")
        taskq.close()
        variables = {"BENCH_URL": server.url, "BENCH_LEDGER": ledger.path, "PYTHONDONTWRITEBYTECODE": ""}
        started_ns, until = time.time_ns(), time.monotonic() + _PATIENCE_S
        with Workers([command], variables, placement.workers, Path(folder) / "log") as workers:
            while not ledger.seen(1):
                if not workers.is_alive or time.monotonic() > until:
                    raise CaseError(f"the first task did not run: {workers.last_words()}")
                time.sleep(_LOOK_S)
            figures = {"first_task_s": (ledger.starts[0] - started_ns) / 1e9}
            time.sleep(_SETTLE_S)
            alone = left_alone(server, workers, seconds)
            figures |= {
                "idle_commands_per_s": alone["idle_commands"],
                "idle_requests_per_s": alone["idle_requests"],
                "idle_cpu_percent": alone["idle_cpu_percent"],
                "rss_mb": alone["rss_mb"],
                "own_mb": alone["own_mb"],
            }
        account = ledger.account(1)
        ledger.close()
    return Found(figures=figures, account=account, tasks=1)


def idle_by_queues(server: RedisServer, placement: Placement, *, queues: Sequence[int], seconds: int) -> Found:
    """Measure idle workers with different numbers of queues at the same time, each on its own Redis.

    The figures are those of `scenarios.idle`, each name with the number of queues before it.
    """

    def measure(count: int, url: str) -> dict[str, float]:
        found = run_apart("idle", url, {"queues": count, "seconds": seconds})
        return {f"{count}_{name}": value for name, value in found.items()}

    figures: dict[str, float] = {}
    with ExitStack() as stack, ThreadPoolExecutor(len(queues)) as pool:
        for found in pool.map(measure, queues, [stack.enter_context(RedisServer()).url for _ in queues]):
            figures |= found
    return Found(figures=figures)
