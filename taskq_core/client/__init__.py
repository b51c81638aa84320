"""Enqueue tasks: `Client` for blocking code, `AsyncClient` for coroutines.

Both clients use the same code to prepare tasks (`preparer`, `bulk`) and to read responses. They differ only in the
runner that sends requests to Redis. A framework adapter can provide a `TransactionHook`. It postpones sending to the
commit of a database transaction.
"""

from taskq_core.client.aio import AsyncClient
from taskq_core.client.sync import Client

__all__ = ["AsyncClient", "Client"]
