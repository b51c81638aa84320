"""Select log records for tests that check the whole log."""

import logging
import threading

import pytest


def logged_here(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records of this thread. Records of other threads and of asyncio may come from an earlier test."""
    return [each for each in caplog.records if each.thread == threading.get_ident() and each.name != "asyncio"]
