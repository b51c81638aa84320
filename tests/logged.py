"""Help tests that check the whole log: select records, and hostile characters."""

import logging
import threading

import pytest

CONTROLS = "".join(
    map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)))
)
"""All control characters, the line and paragraph separator, and the characters that change the writing direction."""


def logged_here(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records of this thread. Records of other threads and of asyncio may come from an earlier test."""
    return [each for each in caplog.records if each.thread == threading.get_ident() and each.name != "asyncio"]
