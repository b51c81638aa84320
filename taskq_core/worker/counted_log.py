"""Log events that may come in floods, such as ids without a task: at most one line a minute for each queue."""

import asyncio
import logging

EVERY_S = 60.0
"""Seconds between two lines about one queue."""


class CountedLog:
    """Logs how often something happened in a queue.

    The first event is logged at once. Later ones are counted, and their number is logged a minute after the last line.

    Args:
        logger: Where to log.
        level: Level of the lines.
        message: Format of a line; it takes the number of events and the name of the queue.
    """

    def __init__(self, logger: logging.Logger, level: int, message: str) -> None:
        self._logger = logger
        self._level = level
        self._message = message
        self._counts: dict[str, int] = {}  # of queues with a line less than a minute ago: events since then
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def add(self, count: int, queue: str) -> None:
        """Note that something happened `count` times. Call it on the event loop."""
        if queue in self._counts:
            self._counts[queue] += count
        else:
            self._write(count, queue)

    def flush(self) -> None:
        """Log what was counted since the last line, as when the worker ends."""
        for timer in self._timers.values():
            timer.cancel()
        counts, self._counts, self._timers = self._counts, {}, {}
        for queue, count in counts.items():
            if count:
                self._logger.log(self._level, self._message, count, queue, extra={"queue": queue})

    def _write(self, count: int, queue: str) -> None:
        self._counts[queue] = 0
        self._timers[queue] = asyncio.get_running_loop().call_later(EVERY_S, self._end_minute, queue)
        self._logger.log(self._level, self._message, count, queue, extra={"queue": queue})

    def _end_minute(self, queue: str) -> None:
        del self._timers[queue]
        count = self._counts.pop(queue)
        if count:
            self._write(count, queue)
