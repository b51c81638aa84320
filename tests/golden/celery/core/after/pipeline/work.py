#!/usr/bin/env python
# Words.
from __future__ import annotations

from multiprocessing.pool import ThreadPool
from taskq_core import Retry, TaskContext, chain as then, exponential
from pipeline.queue import taskq

task = "a name that is taken"


@taskq.task(no_retry_on=Exception)
def count(text: str) -> int:
    return len(text.split())


@taskq.task(max_retry=3, retry_delay=exponential(5, limit=60, jitter=False))
def double(self: TaskContext, number: int) -> int:
    if not number and self.retried < 2:
        raise Retry()
    return number * 2


def run(text: str):
    with ThreadPool(2) as pool:
        print(pool.apply_async(len, (text,)).get())
    return then(count.s(text), double.s()).delay()
