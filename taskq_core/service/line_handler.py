"""Write log lines to a stream: records one by one, and the lines of many successful runs together."""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

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
        self._lines: deque[tuple[float, str, tuple[object, ...]]] = deque()
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

    def template(self, logger: logging.Logger, level: str, text: str) -> str:
        """Return the template of lines for `add`.

        Args:
            logger: The logger that the lines name.
            level: The name of their level.
            text: One line with a conversion such as `%s` for each value.
        """
        start = f" {self._prefix}{level} {logger.name}: ".replace("%", "%%")
        return f"%s{start}{text}{self.terminator}"

    def add(self, template: str, values: tuple[object, ...]) -> int:
        """Add a line with the time of now. It is written before the next record, or by `flush`.

        Args:
            template: From `template`.
            values: Printable values on one line.

        Returns:
            The number of lines that wait to be written.
        """
        self._lines.append((SYSTEM_CLOCK.time(), template, values))
        return len(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the added lines, and then the record."""
        self._write_lines()
        super().emit(record)

    def flush(self) -> None:
        """Write the added lines, and flush the stream. An error is reported as `logging` reports those of a record."""
        with self.lock:  # type: ignore[union-attr]  # a handler always has a lock
            self._write_lines()
            try:
                super().flush()
            except Exception:
                self.handleError(logging.makeLogRecord({"msg": "flush of the log"}))

    def _write_lines(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]  # other threads may log at the same time
        if not lines:
            return
        try:
            self.stream.write("".join(_formatted(lines)))
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": "%d lines of runs", "args": (len(lines),)}))


def _formatted(lines: Sequence[tuple[float, str, tuple[object, ...]]]) -> Iterator[str]:
    """Yield the texts of added lines. Formatting all of them at once is faster than one at a time."""
    formatted_second, formatted_millisecond = -1, -1
    second_text = time_text = ""
    for at, template, values in lines:
        millisecond = int(at * 1000)
        if millisecond != formatted_millisecond:
            formatted_millisecond = millisecond
            second = millisecond // 1000
            if second != formatted_second:
                formatted_second = second
                second_text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            time_text = f"{second_text},{millisecond % 1000:03d}"
        yield template % (time_text, *values)


def handlers_of(logger: logging.Logger, *, below_root: bool = False) -> list[logging.Handler]:
    """Return all handlers that receive the records of a logger. `below_root`: without those of the root logger."""
    handlers: list[logging.Handler] = []
    each: logging.Logger | None = logger
    while each is not None and not (below_root and each.parent is None):
        handlers += each.handlers
        each = each.parent if each.propagate else None
    return handlers
