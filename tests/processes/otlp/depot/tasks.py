"""Tasks whose arguments, results and exceptions contain a secret, which no signal may contain."""

import os

import redis

from taskq_core import GroupedTask, Retry, Signature, TaskContext
from taskq_django import task, taskq


@task(name="depot:pack")
def pack(secret: str) -> str:
    """Send a command to Redis, as user code may."""
    redis.Redis.from_url(os.environ["TASKQ_URL"]).get("depot:stock")
    return secret


@task(name="depot:apack")
async def apack(secret: str) -> str:
    return secret


@task(name="depot:flaky", max_retry=1)
def flaky(context: TaskContext, secret: str) -> None:
    if context.retried == 0:
        raise Retry(after=0) from ValueError(secret)


@task(name="depot:broken", max_retry=0)
def broken(secret: str) -> None:
    raise ValueError(secret)


@task(name="depot:nested")
def nested(secret: str) -> None:
    pack.delay(secret)


@task(name="depot:weigh", queue="grouped")
def weigh(parcel: str) -> int:
    return len(parcel)


@task(name="depot:load", queue="grouped")
def load(weights: list[int]) -> None: ...


@task(name="depot:apart", trace="link")
def apart(secret: str) -> None: ...


@task(name="depot:parcel", queue="grouped", aggregate="parcels")
def parcel(secret: str) -> None: ...


@task(name="depot:pallet", queue="grouped")
def pallet(parcels: int) -> None: ...


@taskq.aggregator("parcels", max_size=3)
def stack(group: str, tasks: list[GroupedTask]) -> Signature[None]:
    return pallet.s(len(tasks))
