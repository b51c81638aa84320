"""Log frequent events, such as ids without a task, with at most one line a minute for each subject."""

import asyncio
import logging

EVERY_S = 60.0
"""Minimum seconds between two log lines about one subject."""
SUBJECTS_MAX = 100
"""Maximum number of separately counted subjects. The number is limited, because a subject may be a task type that
contains an id."""
OTHERS = "(others)"
"""Subject under which events of all further subjects are counted."""


class CountedLog:
    """Counts events by queue or another subject, and logs the counts.

    The first event is logged at once. Later events are counted, and the count is logged a minute after the last line.

    Args:
        logger: Logger for the lines.
        level: Level of the lines.
        message: Format of a line, with the number of events and the subject as arguments.
        field: Name of the log record's field that holds the subject.
    """

    def __init__(self, logger: logging.Logger, level: int, message: str, field: str = "queue") -> None:
        self._logger = logger
        self._field = field
        self._level = level
        self._message = message
        # Number of events since the last log line, for each subject that was logged within the last minute.
        self._counts: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def add(self, count: int, subject: str) -> None:
        """Count `count` events of a subject. Log the first event of a subject at once. Call this on the event loop."""
        if subject not in self._counts and len(self._counts) >= SUBJECTS_MAX:
            subject = OTHERS
        if subject in self._counts:
            self._counts[subject] += count
        else:
            self._write(count, subject)

    def flush(self) -> None:
        """Log the events that were counted since the last line. Called when the worker ends."""
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
