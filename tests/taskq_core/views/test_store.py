"""Test the information about a store as shown to an operator."""

from datetime import timedelta
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.views import Dashboard
from tests.redis_server import RedisServer, start_cluster
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis


async def test_the_figures_of_a_server_are_returned(ask: Ask, redis_server: RedisServer) -> None:
    info: Any = redis_server.client.info()

    row = await ask("store")

    assert (row.kind, row.version) in (("Redis", info["redis_version"]), ("Valkey", info.get("valkey_version")))
    assert row.uptime >= timedelta(0)
    assert 0 < row.memory <= row.memory_peak
    assert (row.memory_limit, row.replicas, row.user) == (None, 0, "default")
    assert row.clients >= 1
    assert row.fragmentation > 0
    assert row.saved_at.year > 2000
    assert row.info["redis_mode"] == "standalone"
    assert (row.is_cluster, dict(row.cluster), list(row.places)) == (False, {}, [])


async def test_values_without_permission_are_omitted(ask: Ask, redis_server: RedisServer) -> None:
    redis_server.client.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        row = await ask("store")
    finally:
        redis_server.client.execute_command("ACL", "SETUSER", "default", "+@all")

    assert (row.kind, row.version, row.user, row.memory, row.uptime) == ("", "", "default", None, None)


def test_a_cluster_lists_the_node_of_each_queue() -> None:
    with start_cluster() as nodes:
        app = TaskQ("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes), enqueue_timeout=30)
        for name in ("a", "b"):
            app.remote("email", queue=name).delay()
        row = Dashboard(Inspector(app)).store()
        app.close()

    assert row.is_cluster
    assert row.cluster["cluster_state"] == "ok"
    assert [(place.name, len(place.nodes)) for place in row.places] == [("a", 1), ("b", 1)]
    assert row.places[0].slot != row.places[1].slot
