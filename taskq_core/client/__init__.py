"""Enqueue tasks: `Client` for blocking code, `AsyncClient` for coroutines.

Both prepare a task in the same way (`preparer`, `bulk`) before anything is sent, and both read the answer in the same
way. They differ only in the runner that sends. Where a framework adapter put a `TransactionHook`, it may postpone the
sending to the commit.
"""

from taskq_core.client.aio import AsyncClient
from taskq_core.client.sync import Client

__all__ = ["AsyncClient", "Client"]
