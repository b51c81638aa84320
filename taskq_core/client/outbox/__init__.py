"""Transactional enqueue: a task stands in the user's database before it stands in Redis.

The row of a task is written in the transaction of the data it belongs to, so both are there or neither is. Rows are
moved to Redis right after the commit, and by a relay in every worker for whatever that missed. Adapters bring the
table; the rules are here::

    row written, in the user's transaction
      |  commit
    claimed       for `CLAIM_S`, by one sender at a time
      |
    delivered     one script stores tasks and leaves a receipt for each
      |
    row deleted
      |
    receipt given back

A crash at any arrow neither loses the task nor stores it twice: until the row is gone its claim runs out and another
sender takes it, and the receipt tells that one what has been stored already. A sender that slept beyond its claim is
refused by Redis's clock (`SEND_S` after the claim began), because by then the row and its receipt may be gone. The
promise holds while the clocks of a cluster's nodes agree to within `CLAIM_S - SEND_S`, and for tasks that Redis keeps.
"""

from taskq_core.client.outbox.delivery import Delivered, Delivery
from taskq_core.client.outbox.sender import OutboxSender
from taskq_core.client.outbox.table import Outbox, OutboxFigures, OutboxRow, OutboxTable

__all__ = [
    "Delivered",
    "Delivery",
    "Outbox",
    "OutboxFigures",
    "OutboxRow",
    "OutboxSender",
    "OutboxTable",
]
