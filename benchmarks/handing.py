"""What a bare client takes to hand something to another process: the floor under the time from enqueue to start."""

import asyncio
import json
import statistics
import subprocess
import sys
import time

import redis.asyncio
import uvloop

Figures = dict[str, float]
LIST = "handed"
_END = b"end"


def bare_latency(url: str, *, per_s: int, seconds: int) -> Figures:
    """Time from before an LPUSH to the answer of a BLPOP in another process, at a steady rate: both redis-py's own.

    No task, no script, no outcome; but the same wake-ups of the same processes on the same CPUs.

    Args:
        url: Redis.
        per_s: Elements a second.
        seconds: How long.
    """
    code = "from benchmarks.handing import taker; import sys; taker(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the process that takes did not start")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with redis.asyncio.Redis.from_url(url) as client:
                await client.ping()
                started = loop.time()
                for number in range(per_s * seconds):
                    await asyncio.sleep(max(0.0, started + number / per_s - loop.time()))
                    await client.lpush(LIST, time.time_ns())
                await client.lpush(LIST, _END)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        delays = sorted(json.loads(process.stdout.readline()))
    if len(delays) != per_s * seconds:
        raise SystemExit(f"{len(delays)} of {per_s * seconds} elements came")
    return {"p50_ms": statistics.median(delays) * 1e3, "p99_ms": delays[int(len(delays) * 0.99)] * 1e3}


def taker(url: str) -> None:
    """The other process: prints a line when it waits, the delays when it is told to end."""

    async def main() -> list[float]:
        delays: list[float] = []
        async with redis.asyncio.Redis.from_url(url) as client:
            await client.ping()
            print("ready", flush=True)
            while True:
                answer = await client.blpop(LIST, 0)
                now_ns = time.time_ns()
                assert answer is not None  # it waits without an end
                sent_ns = answer[1]
                if sent_ns == _END:
                    return delays
                delays.append((now_ns - int(sent_ns)) / 1e9)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(main())), flush=True)
