#!/usr/bin/env python
# Words.
from __future__ import annotations

from multiprocessing.pool import ThreadPool

from celery import chain as then

from .app import app

task = "a name that is taken"


@app.task
def count(text: str) -> int:
    return len(text.split())


@app.task(bind=True, autoretry_for=(Exception,), retry_backoff=5, retry_backoff_max=60, retry_jitter=False, acks_late=True)
def double(self, number: int) -> int:
    if not number and self.request.retries < 2:
        self.retry()
    return number * 2


def run(text: str):
    with ThreadPool(2) as pool:
        print(pool.apply_async(len, (text,)).get())
    return then(count.s(text), double.s())()
