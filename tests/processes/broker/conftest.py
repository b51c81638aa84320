"""Fixtures of tests/taskq_core/broker."""

from tests.taskq_core.broker.conftest import not_in_a_hurry
from tests.taskq_core.broker.test_embedded import folder, program

__all__ = ["folder", "not_in_a_hurry", "program"]
