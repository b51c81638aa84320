"""Record and read samples of a queue over time, and counters of its successful and failed runs by task type."""

from collections.abc import Callable, Mapping
from typing import Any

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import RECEIPT_KEPT_S, Argument, Operation, command, script
from taskq_core.wire import QueueKeys
from taskq_core.wire.samples import Level, QueueSample
from taskq_core.wire.tallies import (
    HOUR_S,
    HOURS_KEPT,
    OTHER_TYPES,
    TOTALS_KEPT_S,
    TYPE_KEPT_HOURS,
    TYPES_MOST,
    TypeCounters,
)


def sample(queue: QueueKeys, samples: Mapping[Level, QueueSample]) -> Operation[list[int]]:
    """Record a sample of a queue at each resolution that is due.

    The answer has one number per resolution: 1 recorded, 0 not due, -1 its key has another type.
    """
    args: list[Argument] = []
    for level, each in samples.items():
        args += (level.step_s, level.most, level.span_s, each.encode())
    keys = (queue.absent, *(queue.samples(level.step_s) for level in samples))
    return script("sample", keys, args, lambda reply: [int(each) for each in reply])


def read_samples(queue: QueueKeys, level: Level, *, count: int) -> Operation[list[QueueSample]]:
    """Read the newest samples of a resolution, the oldest of them first. Invalid samples are omitted."""
    key = queue.samples(level.step_s)

    def read(reply: Any) -> list[QueueSample]:
        found = [QueueSample.decode(each) for each in reversed(reply)]
        return [each for each in found if each is not None]

    return command("read_samples", ("LRANGE", key, 0, count - 1), read)


def count_runs(
    queue: QueueKeys, hour: int, tallies: Mapping[str, TypeCounters], *, owner: str, call: int
) -> Operation[int]:
    """Add the outcomes of runs, by task type, to the counters of an hour (Unix hours) and to the totals.

    A repeat of the last `call` of a worker within two minutes adds nothing. The answer is 1 if they were added, 0 for a
    repeat, and -1 if one of the two keys has another type.
    """
    keys = (queue.tally(hour), queue.receipt(f"tally-{owner}"), queue.absent, queue.totals)
    kept = (HOURS_KEPT * HOUR_S, TOTALS_KEPT_S)
    args: list[Argument] = [call, RECEIPT_KEPT_S, *kept, TYPES_MOST, OTHER_TYPES, hour, TYPE_KEPT_HOURS]
    for name, each in tallies.items():
        args += (name.encode(errors="replace"), each.encode())
    return script("count_runs", keys, args, replies.integer)


def read_tally(queue: QueueKeys, hour: int) -> Operation[dict[str, TypeCounters]]:
    """Read the counters of an hour (Unix hours), by task type. Invalid counters are omitted."""
    key = queue.tally(hour)
    return command("read_tally", ("HGETALL", key), lambda reply: _tallies(reply, TypeCounters.decode))


def read_totals(queue: QueueKeys) -> Operation[dict[str, TypeCounters]]:
    """Read the outcomes of all runs so far, by task type. Invalid counters are omitted."""
    key = queue.totals
    decode = TypeCounters.decode_total
    return command("read_totals", ("HGETALL", key), lambda reply: _tallies(reply, decode))


def _tallies(reply: Any, decode: Callable[[bytes], TypeCounters | None]) -> dict[str, TypeCounters]:
    found = {name: decode(text) for name, text in replies.shown_fields(reply).items()}
    return {name: each for name, each in found.items() if each is not None}
