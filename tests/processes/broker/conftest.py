"""Use the fixtures of tests/taskq_core/broker."""

from tests.taskq_core.broker.conftest import uses_long_connect_timeout
from tests.taskq_core.broker.test_embedded import folder, program

__all__ = ["folder", "program", "uses_long_connect_timeout"]
