"""Faults of Redis: killed, frozen, full, forgetful, refusing. Numbers as in `faults`."""

import random
from collections.abc import Iterator
from contextlib import suppress

import redis

from tests.soak import program
from tests.soak.schedule import PlannedFault
from tests.soak.stage import Stage


def restarted(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """19: SIGKILL, and started again on its append-only file."""
    draw = random.Random(fault.seed)
    for _ in range(2):
        over = stage.outage("redis killed")
        for _ in range(300):
            if _writes_before_it_answers(stage):
                break
            yield 0.1  # another fault keeps it from answering just now
        else:
            over()
            return
        stage.store.server.kill()
        yield draw.uniform(0.1, 1.2)
        stage.store.server.start()
        over()
        yield fault.lasts_s / 2


def _writes_before_it_answers(stage: Stage) -> bool:
    """Have Redis write what it holds, and all from now on until it is started again, before it answers.

    With `everysec` it keeps in memory what comes while an fsync is under way, which takes seconds on a busy disk, and
    acknowledges it. A kill in that moment loses that. It is Redis's to lose.
    """
    return stage.command("CONFIG", "SET", "appendfsync", "always") is not None


def connections_killed(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """22: every connection is closed, again and again."""
    for _ in range(int(fault.lasts_s / 0.3)):
        stage.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        stage.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield 0.3


def frozen(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """23: Redis answers nobody for a while: stopped as a process, or by CLIENT PAUSE."""
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
    """24: over maxmemory, longer than any lease. New tasks are refused, the others are finished."""
    for _ in range(stage.profile.workers):
        stage.enqueue(program.along.s(stage.slot(), fault.lasts_s))
        yield 0.0  # each takes a while where Redis is away, and another fault may be what ends that
        stage.enqueue(program.long.s(stage.slot(), fault.lasts_s))
        yield 0.0
    yield 0.3
    for _ in range(int(fault.lasts_s / 0.5)):
        stage.command("CONFIG", "SET", "maxmemory", "1")  # again: a restarted Redis has forgotten it
        yield 0.5
    while not stage.unfill():
        yield 0.2


def scripts_flushed(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """26: Redis forgets all scripts, again and again."""
    for _ in range(int(fault.lasts_s / 0.05)):
        stage.command("SCRIPT", "FLUSH")
        yield 0.05


def refusing(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """27: Redis answers and refuses: a replica of nobody, too few replicas, busy with a long script."""
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
            with suppress(redis.ResponseError):  # a Redis that was killed meanwhile runs no script
                stage.command("SCRIPT", "KILL")
            stage.command("CONFIG", "SET", "busy-reply-threshold", "5000")
    over()
