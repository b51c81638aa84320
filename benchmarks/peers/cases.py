"""Measure a peer: enqueue tasks, run its workers, and check the result in the ledger."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import ROOT, Environment
from benchmarks.peers.ledger import Ledger
from benchmarks.peers.processes import Workers
from benchmarks.peers.settings import Peer, Setting
from benchmarks.placement import Placement, on
from benchmarks.session import CaseError, Found
from tests.redis_server import RedisServer

_PATIENCE_S = 30.0
"""Seconds without progress after which a measurement fails."""
_LOOK_S = 0.01
_AFTERWARDS_S = 0.1
"""Seconds for which workers continue after the last task, so that the ledger shows tasks that run twice."""
_SETTLE_S = 1.0
_IDLE_S = 4.0
_WARM = 20
"""Number of first tasks at the steady rate that are not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs measurements of one peer in one setting.

    Args:
        single_s: Seconds for which tasks are enqueued one after another.
        per_s: The steady rate in tasks per second.
        steady_s: Seconds for which tasks are enqueued at the steady rate.
        is_over: Returns whether a drain is over, after all tasks have run.
    """

    peer: Peer
    setting: Setting
    environment: Environment
    single_s: float = 0.4
    single_most: int = 10_000
    per_s: int = 200
    steady_s: float = 2.0
    is_over: Callable[[], bool] = lambda: True

    def drain(self, server: RedisServer, placement: Placement, *, count: int, kind: str = "noop") -> Found:
        """Enqueue tasks and let workers drain the queue. If the setting says so, also measure single enqueues."""
        singles = self.setting.enqueues and kind == "noop"
        order: dict[str, Any] = {"first": 0, "kind": kind, "bulk": max(2, count)}
        if singles:
            order |= {"single_s": self.single_s, "single_most": self.single_most}
        with tempfile.TemporaryDirectory(prefix="taskq-bench-") as folder:
            ledger = Ledger.create(Path(folder) / "ledger", count + 2 * self.single_most + 10)
            made = self._produce(server, placement, ledger, order)
            total: int = made["next"]
            redis_before_s = _redis_cpu_s(server)
            with self._workers(server, placement, ledger) as workers:
                self._wait(workers, ledger, lambda: ledger.seen(total) > 0, total)
                cpu_before_s, seen_before = workers.cpu_s(), ledger.seen(total)
                self._wait(workers, ledger, lambda: ledger.seen(total) == total, total)
                self._wait(workers, ledger, self.is_over, total)
                cpu_s, redis_s = workers.cpu_s() - cpu_before_s, _redis_cpu_s(server) - redis_before_s
                time.sleep(_AFTERWARDS_S)
            account = ledger.account(total)
            figures = {"rate": ledger.rate(total), "redis_cpu_us": redis_s / total * 1e6}
            if total > seen_before:
                figures["worker_cpu_us"] = cpu_s / (total - seen_before) * 1e6
            ledger.close()
        for name in ("sync", "async", "bulk"):
            if name in made:
                figures[name] = made[name][0] / made[name][1]
        return Found(figures=figures, account=account, tasks=total)

    def idle(self, server: RedisServer, placement: Placement) -> Found:
        """Start a worker and measure it while it is idle. Then measure latencies at a steady rate of enqueues."""
        with tempfile.TemporaryDirectory(prefix="taskq-bench-") as folder:
            ledger = Ledger.create(Path(folder) / "ledger", int(self.per_s * self.steady_s) + 10)
            self._produce(server, placement, ledger, {"first": 0, "kind": "noop", "bulk": 1})
            started_ns = time.time_ns()
            with self._workers(server, placement, ledger) as workers:
                self._wait(workers, ledger, lambda: ledger.seen(1) == 1, 1)
                figures = {"start_up_s": (ledger.starts[0] - started_ns) / 1e9}
                time.sleep(_SETTLE_S)
                figures |= left_alone(server, workers, _IDLE_S)
                order = {"first": 1, "kind": "noop", "per_s": self.per_s, "seconds": self.steady_s}
                made = self._produce(server, placement, ledger, order)
                total: int = made["next"]
                self._wait(workers, ledger, lambda: ledger.seen(total) == total, total)
                time.sleep(_AFTERWARDS_S)
            account = ledger.account(total)
            delays = [(ledger.starts[number] - sent) / 1e6 for number, sent in enumerate(made["sent"], start=1)]
            ledger.close()
        delays = sorted(delays[_WARM:])
        figures["p50_ms"] = statistics.median(delays)
        figures["p99_ms"] = delays[int(len(delays) * 0.99)]
        return Found(figures=figures, account=account, tasks=total)

    def _variables(self, server: RedisServer, ledger: Ledger) -> Mapping[str, str]:
        return {
            **self.environment.variables,
            **self.setting.environment,
            "BENCH_URL": server.url,
            "BENCH_LEDGER": ledger.path,
            # Let Python write byte code for programs that run from their source. Installed packages have it already.
            "PYTHONDONTWRITEBYTECODE": "",
            "BENCH_SETTING": json.dumps(dict(self.setting.values)),
        }

    def _produce(
        self, server: RedisServer, placement: Placement, ledger: Ledger, order: dict[str, Any]
    ) -> dict[str, Any]:
        program = (
            ["benchmarks/peers/bullmq_npm.mjs", "produce"]
            if self.peer.node
            else ["-m", "benchmarks.peers.produce", self.peer.name]
        )
        command = [self.environment.program, *program, json.dumps(order)]
        variables = {**os.environ, **self._variables(server, ledger)}
        try:
            with on(placement.workers):
                done = subprocess.run(
                    command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False
                )
        except subprocess.TimeoutExpired:
            raise CaseError(f"enqueueing took more than 120 s: {order}") from None
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            raise CaseError(f"enqueueing failed: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
        made: dict[str, Any] = json.loads(lines[-1])
        return made

    def _workers(self, server: RedisServer, placement: Placement, ledger: Ledger) -> Workers:
        adapter = f"benchmarks.peers.{self.peer.name}"
        words = self.setting.command.replace("{adapter}", adapter).replace("{url}", server.url).split()
        commands = [[self.environment.program, *words]] * self.setting.copies
        log = Path(ledger.path).with_name("log")
        return Workers(commands, self._variables(server, ledger), placement.workers, log)

    @staticmethod
    def _wait(workers: Workers, ledger: Ledger, is_done: Callable[[], bool], total: int) -> None:
        """Wait until the ledger reaches the count. Give up when it stops changing.

        Raises:
            CaseError: A worker has ended, or no more tasks run.
        """
        seen, until = 0, time.monotonic() + _PATIENCE_S
        while not is_done():
            if not workers.is_alive:
                raise CaseError(f"a worker has ended: {workers.last_words()}")
            now = time.monotonic()
            if (ran := ledger.seen(total)) > seen:
                seen, until = ran, now + _PATIENCE_S
            elif now > until:
                raise CaseError(f"{total - seen} of {total} tasks did not run: {workers.last_words()}")
            time.sleep(_LOOK_S)


def left_alone(server: RedisServer, workers: Workers, seconds: float) -> dict[str, float]:
    """Measure the requests, CPU time and memory of idle workers during some seconds."""
    before, cpu_before_s, started = server.client.info("stats"), workers.busy_s(), time.perf_counter()
    time.sleep(seconds)
    elapsed_s, cpu_s = time.perf_counter() - started, workers.busy_s() - cpu_before_s
    after = server.client.info("stats")
    commands = after["total_commands_processed"] - before["total_commands_processed"] - 1  # without the first INFO
    requests = after["total_reads_processed"] - before["total_reads_processed"] - 1
    return {
        "idle_commands": commands / elapsed_s,
        "idle_requests": requests / elapsed_s,
        "idle_cpu_percent": cpu_s / elapsed_s * 100,
        "rss_mb": workers.rss_mb(),
        "own_mb": workers.own_mb(),
    }


def _redis_cpu_s(server: RedisServer) -> float:
    cpu = server.client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
