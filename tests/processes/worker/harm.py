"""Faults that a worker process causes itself for a test: signals at a step, and limits of the operating system."""

import os
import signal
from collections.abc import Callable
from typing import Any

import redis

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.pipelines import Pipeline
from taskq_core.worker import Worker, recoverer
from taskq_core.worker.executor import Executor
from taskq_core.worker.recoverer import Recoverer
from taskq_core.worker.settler import Settler

STEPS = ("dequeued", "run", "settling", "settled")
"""Steps: tasks were taken and not started; a function has returned; before its settlement is sent; after that."""


def signal_at(step: str, number: int, *, times: int = 1) -> None:
    """Make this process send itself a signal when it first reaches a step.

    Args:
        step: One of `STEPS`, `starting`, or `before:` or `after:` and the name of an operation that a service sends.
        number: The signal.
        times: How often the signal is sent at this step.
    """
    left = [times]

    def send_signal() -> None:
        count, left[0] = left[0], 0
        for _ in range(count):
            os.kill(os.getpid(), number)

    when, _, name = step.partition(":")
    if when in ("before", "after"):
        _around(name, when, send_signal)
        return
    if step == "settling" or step == "settled":
        exchange = Pipeline.exchange

        async def patched(lane: Pipeline, operations: Any, **options: Any) -> Any:
            settles = any(operation.name.startswith("settle") for operation in operations)
            if settles and step == "settling":
                send_signal()
            answers = await exchange(lane, operations, **options)
            if settles and step == "settled":
                send_signal()
            return answers

        Pipeline.exchange = patched  # type: ignore[method-assign]  # the process is a test's own
        return
    owner, name = {
        "starting": (Worker, "_live"),
        "dequeued": (Executor, "start"),
        "run": (Settler, "add"),
    }[step]
    _before(owner, name, send_signal)


def _around(name: str, when: str, send_signal: Callable[[], None]) -> None:
    """Send the signal before or after the first operation with this name that a service sends."""
    run = AsyncRunner.run

    async def patched(runner: AsyncRunner, operation: Any, **options: Any) -> Any:
        if operation.name == name and when == "before":
            send_signal()
        answer = await run(runner, operation, **options)
        if operation.name == name and when == "after":
            send_signal()
        return answer

    AsyncRunner.run = patched  # type: ignore[method-assign]  # the process is a test's own


def _before(owner: type, name: str, send_signal: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def patched(*args: Any, **options: Any) -> Any:
        send_signal()
        return original(*args, **options)

    setattr(owner, name, patched)


def stop_between_listing_and_moving(notes: "redis.Redis") -> None:
    """Make this process stop itself after its recoverer has listed an expired lease, and record when it continues."""
    recover, work = recoverer.recover, Recoverer.work
    stops = 0

    def stopped(*args: Any, **options: Any) -> Any:
        nonlocal stops
        stops += 1
        if stops == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return recover(*args, **options)

    async def recorded(self: Recoverer) -> float:
        pause_s = await work(self)
        if stops:
            notes.rpush("mark:recoverer", "went on")
        return pause_s

    recoverer.recover = stopped
    Recoverer.work = recorded  # type: ignore[method-assign]  # the process is a test's own


def install(harm: dict[str, Any], notes: "redis.Redis") -> None:
    """Install the faults that a test requested."""
    if "signal" in harm:
        signal_at(harm["at"], harm["signal"], times=harm.get("times", 1))
    if harm.get("recoverer_stops"):
        stop_between_listing_and_moving(notes)
    if "memory_mib" in harm:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        limit = mapped + harm["memory_mib"] * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if "files" in harm:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (harm["files"], harm["files"]))
