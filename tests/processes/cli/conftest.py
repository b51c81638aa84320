"""Use the fixtures of tests/taskq_core/cli."""

from tests.taskq_core.cli.conftest import app, shop

__all__ = ["app", "shop"]
