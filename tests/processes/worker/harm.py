"""Damage a worker process for tests from inside: signals at a chosen step, and limits of the operating system."""

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
"""Tasks were handed out and none started; the function has returned; its outcome is to be sent; Redis has it."""


def signal_at(step: str, number: int, *, times: int = 1) -> None:
    """Let this process send itself a signal when it first comes to a step.

    One of `STEPS`, `starting`, or `before:` or `after:` and the name of an operation that a service sends.
    """
    left = [times]

    def strike() -> None:
        count, left[0] = left[0], 0
        for _ in range(count):
            os.kill(os.getpid(), number)

    when, _, name = step.partition(":")
    if when in ("before", "after"):
        _around(name, when, strike)
        return
    if step == "settling" or step == "settled":
        exchange = Pipeline.exchange

        async def struck(lane: Pipeline, operations: Any, **options: Any) -> Any:
            settles = any(operation.name.startswith("settle") for operation in operations)
            if settles and step == "settling":
                strike()
            answers = await exchange(lane, operations, **options)
            if settles and step == "settled":
                strike()
            return answers

        Pipeline.exchange = struck  # type: ignore[method-assign]  # the process is a test's own
        return
    owner, name = {
        "starting": (Worker, "_live"),
        "dequeued": (Executor, "start"),
        "run": (Settler, "add"),
    }[step]
    _before(owner, name, strike)


def _around(name: str, when: str, strike: Callable[[], None]) -> None:
    """Strike before or after the first operation of a name that services send."""
    run = AsyncRunner.run

    async def struck(runner: AsyncRunner, operation: Any, **options: Any) -> Any:
        if operation.name == name and when == "before":
            strike()
        answer = await run(runner, operation, **options)
        if operation.name == name and when == "after":
            strike()
        return answer

    AsyncRunner.run = struck  # type: ignore[method-assign]  # the process is a test's own


def _before(owner: type, name: str, strike: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def struck(*args: Any, **options: Any) -> Any:
        strike()
        return original(*args, **options)

    setattr(owner, name, struck)


def stop_between_listing_and_moving(notes: "redis.Redis") -> None:
    """Let the recoverer of this process stop (SIGSTOP) once it has listed a lapsed lease, and note when it went on."""
    recover, work = recoverer.recover, Recoverer.work
    stops = 0

    def stopped(*args: Any, **options: Any) -> Any:
        nonlocal stops
        stops += 1
        if stops == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return recover(*args, **options)

    async def noted(self: Recoverer) -> float:
        pause_s = await work(self)
        if stops:
            notes.rpush("mark:recoverer", "went on")
        return pause_s

    recoverer.recover = stopped
    Recoverer.work = noted  # type: ignore[method-assign]  # the process is a test's own


def install(harm: dict[str, Any], notes: "redis.Redis") -> None:
    """Arm what a test asked for."""
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
