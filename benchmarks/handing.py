"""Measure how fast simple clients pass data to another process: lower bounds of the time from enqueue to start.

One measurement passes list elements with redis-py, the client library of taskq. The other sends taskq's scripts over
blocking sockets, without an event loop, without decoding, and without settling tasks.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time

import redis.asyncio
import uvloop

from benchmarks.raw import QUEUE, Pipe, batches
from taskq_core.broker.operations import new_tasks, runs, services
from taskq_core.broker.operations.new_tasks import ReceiptSlot

Figures = dict[str, float]
LIST = "handed"
_END = b"end"


def bare_latency(url: str, *, per_s: int, seconds: int) -> Figures:
    """Measure the time from an RPUSH to the response of a BLPOP in another process, at a steady rate, with redis-py.

    There are no tasks, scripts and outcomes, but the same processes wake up on the same CPUs.

    Args:
        url: URL of Redis.
        per_s: Elements per second.
        seconds: Duration.
    """
    with _taker("taker", url) as process:

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with redis.asyncio.Redis.from_url(url) as client:
                await client.ping()
                started = loop.time()
                for number in range(per_s * seconds):
                    await asyncio.sleep(max(0.0, started + number / per_s - loop.time()))
                    await client.rpush(LIST, time.time_ns())
                await client.rpush(LIST, _END)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        delays = json.loads(_answer(process))
    return _figures(delays, per_s * seconds)


def scripts_latency(url: str, *, per_s: int, seconds: int) -> Figures:
    """Measure the time from an enqueue to the response of a dequeue in another process, with taskq's scripts.

    As a worker does, the consumer sends its dequeue right after its wait for a token, without reading the response
    first. Messages are encoded in advance. They are not decoded or settled.

    Args:
        url: URL of Redis.
        per_s: Tasks per second.
        seconds: Duration.
    """
    count = per_s * seconds
    calls = batches(count, 1)
    with _taker("script_taker", url, str(count)) as process:
        pipe = Pipe(url)
        lane = ReceiptSlot("raw")
        sends = [new_tasks.enqueue(QUEUE, tasks, lane) for tasks in calls]
        pipe.load(sends[0])
        sent_ns: dict[str, int] = {}
        started = time.perf_counter()
        for number, send in enumerate(sends):
            time.sleep(max(0.0, started + number / per_s - time.perf_counter()))
            sent_ns[calls[number][0].task_id] = time.time_ns()
            pipe.send(send)
            pipe.receive()
        taken_ns: dict[str, int] = json.loads(_answer(process))
        pipe.close()
    return _figures([(taken_ns[task_id] - sent_ns[task_id]) / 1e9 for task_id in taken_ns], count)


def _taker(name: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a function of this module in a separate process. Return when it waits for data."""
    code = f"from benchmarks.handing import {name}; import sys; {name}(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    if _answer(process) != "ready\n":
        raise SystemExit("the receiving process did not start")
    return process


def _answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _figures(delays: list[float], count: int) -> Figures:
    if len(delays) != count:
        raise SystemExit(f"only {len(delays)} of {count} elements were received")
    delays.sort()
    return {"p50_ms": statistics.median(delays) * 1e3, "p99_ms": delays[int(len(delays) * 0.99)] * 1e3}


def script_taker(url: str, count: str) -> None:
    """Run the other process of `scripts_latency`. Print a line when it waits, and at the end the times of all tasks."""
    pipe = Pipe(url)
    ask = runs.dequeue(QUEUE, owner="raw", call=0, limit=2, lease_s=30)
    pipe.load(ask)
    wait = services.wait_for_wake([QUEUE.wake], timeout_s=10.0)
    taken_ns: dict[str, int] = {}
    print("ready", flush=True)
    while len(taken_ns) < int(count):
        ask = runs.dequeue(QUEUE, owner="raw", call=len(taken_ns) + 1, limit=2, lease_s=30)
        pipe.send(wait)
        pipe.send(ask)
        if pipe.receive() is None:
            break
        reply = pipe.receive()
        now_ns = time.time_ns()
        for task_id in reply[4::2]:
            taken_ns[task_id.decode()] = now_ns
    pipe.close()
    print(json.dumps(taken_ns), flush=True)


def taker(url: str) -> None:
    """Run the other process of `bare_latency`. Print a line when it waits, and the delays when it is stopped."""

    async def main() -> list[float]:
        delays: list[float] = []
        async with redis.asyncio.Redis.from_url(url) as client:
            await client.ping()
            print("ready", flush=True)
            while True:
                answer = await client.blpop(LIST, 0)
                now_ns = time.time_ns()
                assert answer is not None  # the BLPOP has no timeout
                sent_ns = answer[1]
                if sent_ns == _END:
                    return delays
                delays.append((now_ns - int(sent_ns)) / 1e9)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(main())), flush=True)
