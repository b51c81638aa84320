"""Measure workflows on one worker: a chain, a group and a chord."""

import asyncio
import time
from typing import Any

from taskq_core import TaskQ, WorkflowHandle, chain, chord, group
from taskq_core.broker.operations.workflows import read_workflow
from taskq_core.tasks.canvas import Canvas
from taskq_core.worker import Worker, WorkerConfig

Figures = dict[str, float]


def workflow_chain(url: str, *, count: int) -> Figures:
    """Run a chain of `count` steps that pass on a number. Measure the time to enqueue it, and the time per step."""
    taskq, add, _ = _app(url)
    return _figures(taskq, chain(add.s(0), *(add.s() for _ in range(count - 1))), count, lambda result: result == count)


def workflow_group(url: str, *, count: int) -> Figures:
    """Run a group of `count` members from a generator."""
    taskq, add, _ = _app(url)
    return _figures(taskq, group(add.s(number) for number in range(count)), count, lambda result: len(result) == count)


def workflow_chord(url: str, *, count: int) -> Figures:
    """Run a chord: a group of `count` members, and a callback that adds up their results."""
    taskq, add, total = _app(url)
    workflow = chord((add.s(number) for number in range(count)), total.s())
    return _figures(taskq, workflow, count + 1, lambda result: result == count * (count + 1) // 2)


def _app(url: str) -> tuple[TaskQ, Any, Any]:
    taskq = TaskQ(url)

    @taskq.task(name="bench:add")
    async def add(number: int) -> int:
        return number + 1

    @taskq.task(name="bench:total")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    return taskq, add, total


def _figures(taskq: TaskQ, workflow: Canvas, steps: int, is_right: Any) -> Figures:
    started = time.perf_counter()
    handle = workflow.delay()
    enqueued = time.perf_counter()
    asyncio.run(_work(taskq, handle))
    ended = time.perf_counter()
    if not is_right(handle.result(timeout=60)):
        raise SystemExit("the workflow has another result")
    return {
        "enqueue_s": enqueued - started,
        "run_s": ended - enqueued,
        "steps_per_s": steps / (ended - enqueued),
        "whole_s": ended - started,
    }


async def _work(taskq: TaskQ, handle: WorkflowHandle) -> None:
    """Run a worker until the workflow has ended."""
    worker = Worker(taskq, WorkerConfig(concurrency=50))
    running = asyncio.create_task(worker.arun())
    look = read_workflow(taskq.runtime.keys.queue(handle.queue), handle.id, ["state"])
    while await taskq.runtime.async_runner.run(look) == [b"running"]:
        if running.done():
            raise SystemExit("the worker has ended")
        await asyncio.sleep(0.01)
    worker.stop()
    await running
    await taskq.runtime.async_runner.aclose()
