"""Fixtures of tests/taskq_core/cli."""

from tests.taskq_core.cli.conftest import app

__all__ = ["app"]
