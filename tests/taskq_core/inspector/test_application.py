"""An inspector follows its queue application."""

import inspect
from dataclasses import replace
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector, Inspector
from tests.redis_server import RedisServer


@pytest.mark.redis
@pytest.mark.parametrize("kind", [Inspector, AsyncInspector])
async def test_an_inspector_follows_its_application(kind: Any, redis_server: RedisServer) -> None:
    """It may be made first of all: before the settings are known, and used after its application was closed."""
    app = TaskQ("redis://127.0.0.1:1/0")
    inspector = kind(app)
    redis_server.client.sadd("asynq:queues", "here")
    redis_server.client.sadd("shop:queues", "there")

    async def queues() -> list[str]:
        answer = inspector.queues()
        found: list[str] = await answer if inspect.isawaitable(answer) else answer
        return found

    app.configure(replace(app.settings, url=redis_server.unix_url))
    assert await queues() == ["here"]
    await app.aclose()
    assert await queues() == ["here"]
    await app.aclose()
    app.configure(replace(app.settings, prefix="shop"))
    assert await queues() == ["there"]
    await app.aclose()
