"""Use the Redis and the project of tests/taskq_django."""

from tests.taskq_django.conftest import inspector, json_support, redis

__all__ = ["inspector", "json_support", "redis"]
