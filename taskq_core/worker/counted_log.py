"""Log events that may come in floods, such as ids without a task: at most one line a minute for each subject."""

import asyncio
import logging

EVERY_S = 60.0
"""Seconds between two lines about one subject."""
SUBJECTS_MAX = 100
"""Maximum number of subjects that are counted separately: the type of a task may contain an id."""
OTHERS = "(others)"
"""Stands for all further subjects."""


class CountedLog:
    """Logs how often something happened, for each queue or other subject.

    The first event is logged at once. Later ones are counted, and their number is logged a minute after the last line.

    Args:
        logger: Where to log.
        level: Level of the lines.
        message: Format of a line; it takes the number of events and what they are about.
        field: Field of the log records that says what they are about.
    """

    def __init__(self, logger: logging.Logger, level: int, message: str, field: str = "queue") -> None:
        self._logger = logger
        self._field = field
        self._level = level
        self._message = message
        self._counts: dict[str, int] = {}  # of queues with a line less than a minute ago: events since then
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def add(self, count: int, subject: str) -> None:
        """Note that something happened `count` times. Call it on the event loop."""
        if subject not in self._counts and len(self._counts) >= SUBJECTS_MAX:
            subject = OTHERS
        if subject in self._counts:
            self._counts[subject] += count
        else:
            self._write(count, subject)

    def flush(self) -> None:
        """Log what was counted since the last line, as when the worker ends."""
        for timer in self._timers.values():
            timer.cancel()
        counts, self._counts, self._timers = self._counts, {}, {}
        for subject, count in counts.items():
            if count:
                self._logger.log(self._level, self._message, count, subject, extra={self._field: subject})

    def _write(self, count: int, subject: str) -> None:
        self._counts[subject] = 0
        self._timers[subject] = asyncio.get_running_loop().call_later(EVERY_S, self._end_minute, subject)
        self._logger.log(self._level, self._message, count, subject, extra={self._field: subject})

    def _end_minute(self, subject: str) -> None:
        del self._timers[subject]
        count = self._counts.pop(subject)
        if count:
            self._write(count, subject)
