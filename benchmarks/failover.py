"""Count acknowledged signals that a failover of Sentinel loses: planned, and after a kill of the primary.

`python -m benchmarks.failover` starts a primary, a replica and three Sentinels for each failover. A client
without a worker sends signals to waiting tasks, one after another. At the end, the new primary shows which it has.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from taskq_core import TaskQ
from taskq_core.broker.operations.steps import read_steps
from taskq_core.errors import TaskQError
from tests.topologies.test_sentinel import NAME, Topology, is_up_to_date, start_topology, until

TASKS = 20
"""Number of waiting tasks, which get the signals in turn."""
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "defaults": ({"replicated": False}, {}),
    "min-replicas-to-write 1, min-replicas-max-lag 1": (
        {"replicated": False},
        {"min-replicas-to-write": 1, "min-replicas-max-lag": 1},
    ),
    "replicated=True": ({"replicated": True}, {}),
    "replicated=True, min-replicas-to-write 1, min-replicas-max-lag 1": (
        {"replicated": True},
        {"min-replicas-to-write": 1, "min-replicas-max-lag": 1},
    ),
}
"""Options of the calls, and options of both servers."""


@dataclass(slots=True)
class Figures:
    """The figures of some failovers.

    Attributes:
        acknowledged: Number of acknowledged signals.
        lost: Number of these signals that the new primary does not have.
        errors: Number of calls that raised an error.
        pauses_s: For each failover, the longest time between two acknowledgements.
    """

    acknowledged: int = 0
    lost: int = 0
    errors: int = 0
    pauses_s: list[float] = field(default_factory=list)


async def measure(kind: str, options: dict[str, Any], config: dict[str, int], figures: Figures) -> None:
    """Cause one failover while signals are sent, and add its figures."""
    with start_topology() as topology:
        for server in (topology.primary, topology.replica):
            for name, value in config.items():
                server.client.config_set(name, value)
        taskq = TaskQ(topology.url, enqueue_timeout=1)
        order = taskq.remote("order", run_after=86_400, replicated=True)
        handles = [await order.adelay() for _ in range(TASKS)]
        acknowledged: dict[int, float] = {}
        stopping = asyncio.Event()

        async def send() -> None:
            number = 0
            while not stopping.is_set():
                try:
                    await handles[number % TASKS].asignal("go", number, signal_id=str(number), **options)
                except TaskQError:
                    figures.errors += 1
                    await asyncio.sleep(0.05)
                else:
                    acknowledged[number] = time.monotonic()
                    await asyncio.sleep(0.002)
                number += 1

        await until(topology.is_whole, "the Sentinels know each other")
        sending = asyncio.create_task(send())
        await asyncio.sleep(1)
        await fail_over(kind, topology)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) >= before + 50, "signals are acknowledged again")
        stopping.set()
        await sending

        found: set[int] = set()
        for handle in handles:
            run, queue = taskq.runtime.async_runner.run, taskq.runtime.keys.queue("default")
            record = await run(read_steps(queue, handle.id), patience_s=30)
            found |= {int(value.split()[1]) for name, value in record.items() if name.startswith("r:go#")}
        await taskq.aclose()
        taskq.close()
    times = sorted(acknowledged.values())
    figures.acknowledged += len(acknowledged)
    figures.lost += len(acknowledged.keys() - found)
    figures.pauses_s.append(max(later - earlier for earlier, later in pairwise(times)))


async def fail_over(kind: str, topology: Topology) -> None:
    """Let the replica become the primary, and wait until the old primary is its replica."""
    if kind == "planned":
        topology.sentinels[0].command("SENTINEL", "FAILOVER", NAME)
        await until(lambda: topology.is_named(topology.replica), "the replica is named")
    else:
        topology.kill_primary()
        await until(lambda: topology.is_named(topology.replica), "the replica is named")
        topology.primary.replica_of = topology.replica
        topology.primary.start()
    await until(lambda: is_up_to_date(topology.primary), "the old primary is a replica")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each setting and kind of failover."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__)
    parser.add_argument("--failovers", type=int, default=3, help="failovers of each kind and setting (default: 3)")
    count = parser.parse_args(arguments).failovers
    print("| settings | failover | acknowledged | lost | errors | longest pause |\n|---|---|---|---|---|---|")
    for name, (options, config) in SETTINGS.items():
        for kind in ("planned", "killed"):
            figures = Figures()
            for _ in range(count):
                asyncio.run(measure(kind, options, config, figures))
            pause_s = max(figures.pauses_s)
            words = (name, kind, f"{figures.acknowledged:,}", f"{figures.lost:,}", f"{figures.errors:,}")
            print(f"| {' | '.join(words)} | {pause_s:.1f} s |", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
