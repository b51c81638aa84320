"""Write log lines to a stream: records one by one, and the lines of many successful runs together."""

import logging
import os
import sys
import time
from collections import deque

from taskq_core.clock import SYSTEM_CLOCK


class LineHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only in the stubs
    """A handler that also takes lines without a log record, and writes several of them in one call.

    A record costs much more than its text. So if this handler is the only one that receives the records of a logger,
    the worker adds the line of a successful run as text. The added lines are written before the next record, so the
    order of all lines is kept. Any thread may log records. Only one thread may add lines.

    Args:
        formatter: Formats records.
        prefix: Text between the time and the level of a line.
    """

    def __init__(self, formatter: logging.Formatter, prefix: str) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._own_formatter = formatter
        self._prefix = prefix
        self._lines: deque[str] = deque()
        self._second = 0
        self._second_text = ""
        # The parent process writes the lines that it has added before a fork.
        os.register_at_fork(after_in_child=self._lines.clear)

    def filter(self, record: logging.LogRecord) -> bool | logging.LogRecord:
        """Drop a record that another handler below the root logger writes to the terminal, as Django's default does."""
        for each in handlers_of(logging.getLogger(record.name), below_root=True):
            is_terminal = getattr(each, "stream", None) in (sys.stderr, sys.stdout)
            if each is not self and is_terminal and record.levelno >= each.level and each.filter(record):
                return False
        return super().filter(record)

    def takes_all(self, logger: logging.Logger, level: int) -> bool:
        """Return whether an added line appears exactly as a record of this logger and level would.

        This is not so if the project has changed the factory of records, a filter, a handler or a formatter.
        """
        if logging.getLogRecordFactory() is not logging.LogRecord or type(logger) is not logging.Logger:
            return False
        if logger.filters or self.filters or self.level > level or self.formatter is not self._own_formatter:
            return False
        return handlers_of(logger) == [self]

    def add(self, logger: logging.Logger, level: str, text: str) -> int:
        """Add a line with the time of now. It is written before the next record, or by `flush`.

        Args:
            logger: The line shows its name.
            level: Name of the level.
            text: Printable text on one line.

        Returns:
            The number of lines that wait to be written.
        """
        now = SYSTEM_CLOCK.time()
        second = int(now)
        if second != self._second:
            self._second, self._second_text = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        milliseconds = int((now - second) * 1000)
        self._lines.append(
            f"{self._second_text},{milliseconds:03d} {self._prefix}{level} {logger.name}: {text}{self.terminator}"
        )
        return len(self._lines)

    @property
    def waiting(self) -> int:
        """Number of added lines that wait to be written."""
        return len(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the added lines, and then the record."""
        self._write_lines()
        super().emit(record)

    def flush(self) -> None:
        """Write the added lines, and flush the stream."""
        with self.lock:  # type: ignore[union-attr]  # a handler always has a lock
            self._write_lines()
            super().flush()

    def _write_lines(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]  # other threads may log at the same time
        if not lines:
            return
        try:
            self.stream.write("".join(lines))
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": "%d lines of runs", "args": (len(lines),)}))


def handlers_of(logger: logging.Logger, *, below_root: bool = False) -> list[logging.Handler]:
    """Return all handlers that receive the records of a logger. `below_root`: without those of the root logger."""
    handlers: list[logging.Handler] = []
    each: logging.Logger | None = logger
    while each is not None and not (below_root and each.parent is None):
        handlers += each.handlers
        each = each.parent if each.propagate else None
    return handlers
