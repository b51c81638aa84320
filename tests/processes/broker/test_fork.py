"""Test a process that forks: parent and child have separate connections."""

import os
import socket

import pytest

from taskq_core.broker.operations import new_tasks, views
from tests.redis_server import RedisServer
from tests.taskq_core.broker.test_sync import runner_of


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestFork:
    def test_parent_and_child_have_separate_connections(self, redis_server: RedisServer) -> None:
        """Idle connections are not shared, and the end of the child does not close those of the parent."""
        runner = runner_of(redis_server.unix_url)
        assert runner.run(views.ping())
        before = {client["id"] for client in redis_server.client.client_list()}
        ours, theirs = socket.socketpair()

        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(100):
                    assert runner.run(new_tasks.register_queue("child", ["c"])) in (0, 1)
                    assert runner.run(views.list_queues("child")) == ["c"]
                theirs.send(b"x")
                runner.close()
                status = 0
            finally:
                os._exit(status)
        for _ in range(100):
            assert runner.run(new_tasks.register_queue("parent", ["p"])) in (0, 1)
            assert runner.run(views.list_queues("parent")) == ["p"]
        assert ours.recv(1) == b"x"
        assert os.waitpid(child, 0)[1] == 0

        assert runner.run(views.ping())
        assert before <= {client["id"] for client in redis_server.client.client_list()}, (
            "the connections of the parent were closed"
        )
        for each in (ours, theirs):
            each.close()
        runner.close()
