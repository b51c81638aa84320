"""Record figures of a queue over time, and outcomes of its runs by task type; read both."""

from collections.abc import Callable, Mapping, Sequence
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
    """Record figures of a queue at each resolution that is due.

    Reads as one number per resolution: 1 noted, 0 not its time, -1 the key is of another type.
    """
    args: list[Argument] = []
    for level, each in samples.items():
        args += (level.step_s, level.most, level.span_s, each.encode())
    keys = (queue.absent, *(queue.samples(level.step_s) for level in samples))
    return script("sample", keys, args, lambda reply: [int(each) for each in reply])


def read_samples(queue: QueueKeys, level: Level, *, count: int) -> Operation[list[QueueSample]]:
    """Read the newest samples of a resolution, the oldest of them first. What cannot be read is left out."""
    key = queue.samples(level.step_s)

    def read(reply: Any) -> list[QueueSample]:
        found = [QueueSample.decode(each) for each in reversed(reply)]
        return [each for each in found if each is not None]

    return command("read_samples", ("LRANGE", key, 0, count - 1), read)


def count_runs(
    queue: QueueKeys, hour: int, tallies: Mapping[str, TypeCounters], *, owner: str, call: int
) -> Operation[int]:
    """Add what became of runs, by task type, to the tally of an hour (Unix hours) and to the totals.

    A repeat of the last `call` of a worker adds nothing, for two minutes. Reads as 1 added, 0 a repeat, -1 one of the
    two keys is of another type.
    """
    keys = (queue.tally(hour), queue.receipt(f"tally-{owner}"), queue.absent, queue.totals)
    kept = (HOURS_KEPT * HOUR_S, TOTALS_KEPT_S)
    args: list[Argument] = [call, RECEIPT_KEPT_S, *kept, TYPES_MOST, OTHER_TYPES, hour, TYPE_KEPT_HOURS]
    for name, each in tallies.items():
        args += (name.encode(errors="replace"), each.encode())
    return script("count_runs", keys, args, replies.integer)


def read_tally(queue: QueueKeys, hour: int) -> Operation[dict[str, TypeCounters]]:
    """Read the tally of an hour (Unix hours). What cannot be read is left out."""
    key = queue.tally(hour)
    return command("read_tally", ("HGETALL", key), lambda reply: _tallies(reply, TypeCounters.decode))


def read_totals(queue: QueueKeys) -> Operation[dict[str, TypeCounters]]:
    """Read what became of runs since ever, by task type. What cannot be read is left out."""
    key = queue.totals
    decode = TypeCounters.decode_total
    return command("read_totals", ("HGETALL", key), lambda reply: _tallies(reply, decode))


def _tallies(reply: Any, decode: Callable[[bytes], TypeCounters | None]) -> dict[str, TypeCounters]:
    pairs: Sequence[tuple[bytes, bytes]] = (
        list(reply.items()) if isinstance(reply, dict) else list(zip(reply[::2], reply[1::2], strict=True))
    )
    found = {replies.shown(name): decode(text) for name, text in pairs}
    return {name: each for name, each in found.items() if each is not None}
