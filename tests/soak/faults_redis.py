"""Faults of Redis: killed, frozen, full, without its scripts, rejecting commands. For the numbers see `faults`."""

import random
from collections.abc import Iterator
from contextlib import suppress

import redis

from tests.soak import program
from tests.soak.schedule import PlannedFault
from tests.soak.stage import Stage


def restarted(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """19: SIGKILL Redis and start it again with its append-only file, twice."""
    draw = random.Random(fault.seed)
    for _ in range(2):
        over = stage.outage("redis killed")
        for _ in range(300):
            if _writes_before_it_answers(stage):
                break
            yield 0.1  # another fault makes Redis unavailable
        else:
            over()
            return
        stage.store.server.kill()
        yield draw.uniform(0.1, 1.2)
        stage.store.server.start()
        over()
        yield fault.lasts_s / 2


def _writes_before_it_answers(stage: Stage) -> bool:
    """Make Redis write to the disk before each response, until it is started again. Return whether it accepted.

    With `everysec` Redis keeps commands in memory and acknowledges them while an fsync runs, which takes seconds on a
    busy disk. A kill at that moment would lose acknowledged commands, which taskq cannot prevent.
    """
    return stage.command("CONFIG", "SET", "appendfsync", "always") is not None


def connections_killed(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """22: close every connection, three times a second."""
    for _ in range(int(fault.lasts_s / 0.3)):
        stage.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        stage.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield 0.3


def frozen(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """23: make Redis unresponsive for a while, by SIGSTOP or by CLIENT PAUSE."""
    if not stage.redis_runs:
        return
    over = stage.outage("redis frozen")
    if (fault.variant // 2) % 2:
        stage.command("CLIENT", "PAUSE", int(fault.lasts_s * 1000), "ALL")
        yield fault.lasts_s
    else:
        stage.store.server.pause()
        yield fault.lasts_s
        if stage.redis_runs:
            stage.store.server.resume()
    over()


def full(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """24: keep Redis over maxmemory for longer than a lease. New tasks are refused, running tasks can finish."""
    for _ in range(stage.profile.workers):
        stage.enqueue(program.along.s(stage.slot(), fault.lasts_s))
        yield 0.0  # an enqueue blocks while Redis is unavailable; let the fault continue that makes it available
        stage.enqueue(program.long.s(stage.slot(), fault.lasts_s))
        yield 0.0
    yield 0.3
    for _ in range(int(fault.lasts_s / 0.5)):
        stage.command("CONFIG", "SET", "maxmemory", "1")  # repeated because a restart of Redis resets it
        yield 0.5
    while not stage.unfill():
        yield 0.2


def scripts_flushed(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """26: delete all scripts from Redis's cache, twenty times a second."""
    for _ in range(int(fault.lasts_s / 0.05)):
        stage.command("SCRIPT", "FLUSH")
        yield 0.05


def refusing(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """27: make Redis reject commands: as a replica without a primary, with too few replicas, or busy with a script."""
    over = stage.outage("redis refuses")
    match fault.variant % 3:
        case 0:
            stage.command("REPLICAOF", "127.0.0.1", "1")
            yield fault.lasts_s
            stage.command("REPLICAOF", "NO", "ONE")
        case 1:
            stage.command("CONFIG", "SET", "min-replicas-to-write", "1")
            yield fault.lasts_s
            stage.command("CONFIG", "SET", "min-replicas-to-write", "0")
        case _:
            stage.command("CONFIG", "SET", "busy-reply-threshold", "100")
            stage.run_endless_script()
            yield fault.lasts_s
            with suppress(redis.ResponseError):  # after a restart Redis runs no script
                stage.command("SCRIPT", "KILL")
            stage.command("CONFIG", "SET", "busy-reply-threshold", "5000")
    over()
