"""What a test reads of the log where all of it counts."""

import logging
import threading

import pytest


def logged_here(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what code in this thread has logged: others, and asyncio's garbage, may still tell of an earlier test."""
    return [each for each in caplog.records if each.thread == threading.get_ident() and each.name != "asyncio"]
