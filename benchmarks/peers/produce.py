"""Enqueue tasks of one peer: `python -m benchmarks.peers.produce PEER JSON`, run by the peer's interpreter.

The JSON object names the parts to run, in this order. The numbers of the tasks continue from part to part:

- `first`: number of the first task. `kind`: `noop` or `io`
- `single_s`, `single_most`: enqueue one task after another for `single_s` seconds: blocking, and from one coroutine if
  the peer supports it
- `bulk`: enqueue this many tasks in the fastest way of the peer
- `per_s`, `seconds`: enqueue at a steady rate

It prints one JSON object: `[count, seconds]` for each part; `next`, the number after the last task; and for the steady
rate `sent`, the time before each call in nanoseconds.
"""

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

_WARM = 100
"""Number of tasks that are enqueued in bulk before the measured ones. They open connections and load scripts."""


def main() -> None:
    """Run the parts that the JSON object names."""
    peer = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")
    order: dict[str, Any] = json.loads(sys.argv[2])
    number = int(order["first"])
    kind: str = order["kind"]
    made: dict[str, Any] = {}
    if "single_s" in order and hasattr(peer, "enqueue"):
        number = _single(peer, kind, number, order, made)
    if hasattr(peer, "connect"):
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_with_coroutines(peer, kind, number, order, made))
    else:
        number = _bulk(peer, kind, number, order, made)
        made["next"] = _steady(peer, kind, number, order, made)
    print(json.dumps(made), flush=True)


def _single(peer: Any, kind: str, number: int, order: dict[str, Any], made: dict[str, Any]) -> int:
    peer.enqueue(kind, number)  # opens the connection, and loads what the peer loads once
    number += 1
    first = number
    gc.collect()
    started = time.perf_counter()
    while time.perf_counter() - started < order["single_s"] and number - first < order["single_most"]:
        peer.enqueue(kind, number)
        number += 1
    made["sync"] = [number - first, time.perf_counter() - started]
    return number


def _bulk(peer: Any, kind: str, number: int, order: dict[str, Any], made: dict[str, Any]) -> int:
    count = int(order.get("bulk", 0))
    if count:
        warm = min(_WARM, count // 2)
        if warm:
            peer.enqueue_many(kind, range(number, number + warm))
        gc.collect()
        started = time.perf_counter()
        peer.enqueue_many(kind, range(number + warm, number + count))
        made["bulk"] = [count - warm, time.perf_counter() - started]
    return number + count


def _steady(peer: Any, kind: str, number: int, order: dict[str, Any], made: dict[str, Any]) -> int:
    if per_s := order.get("per_s", 0):
        sent = []
        started = time.perf_counter()
        for turn in range(int(per_s * order["seconds"])):
            time.sleep(max(0.0, started + turn / per_s - time.perf_counter()))
            sent.append(time.time_ns())
            peer.enqueue(kind, number)
            number += 1
        made["sent"] = sent
    return number


async def _with_coroutines(peer: Any, kind: str, number: int, order: dict[str, Any], made: dict[str, Any]) -> None:
    """Run the parts for a peer that enqueues from coroutines."""
    await peer.connect()
    if "single_s" in order:
        await peer.aenqueue(kind, number)
        number += 1
        first = number
        gc.collect()
        started = time.perf_counter()
        while time.perf_counter() - started < order["single_s"] and number - first < order["single_most"]:
            await peer.aenqueue(kind, number)
            number += 1
        made["async"] = [number - first, time.perf_counter() - started]
    if hasattr(peer, "enqueue_many"):
        number = _bulk(peer, kind, number, order, made)
    elif count := order.get("bulk", 0):
        warm = min(_WARM, count // 2)
        if warm:
            await peer.aenqueue_many(kind, range(number, number + warm))
        gc.collect()
        started = time.perf_counter()
        await peer.aenqueue_many(kind, range(number + warm, number + count))
        made["bulk"] = [count - warm, time.perf_counter() - started]
        number += count
    if per_s := order.get("per_s", 0):
        made["sent"] = []
        started = time.perf_counter()
        for turn in range(int(per_s * order["seconds"])):
            await asyncio.sleep(max(0.0, started + turn / per_s - time.perf_counter()))
            made["sent"].append(time.time_ns())
            await peer.aenqueue(kind, number)
            number += 1
    made["next"] = number
    await peer.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    main()
