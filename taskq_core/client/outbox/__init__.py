"""Transactional enqueue: a task is written to the user's database before it is sent to Redis.

The row of a task is written in the same transaction as the user's data, so either both are stored or neither. After the
commit, the client moves the row to Redis at once. If that fails, the relay that runs in every worker moves the row
later. Adapters provide the table. This package implements the protocol::

    row written       in the user's transaction
      |  commit
    row claimed       for `CLAIM_S`, by one sender at a time
      |
    task stored       one script stores the tasks in Redis and writes a receipt for each
      |
    row deleted
      |
    receipt deleted

A crash between two of these steps neither loses the task nor stores it twice. If a sender dies, its claim expires, and
another sender claims the row. The receipt shows that sender whether the task is already stored. If a claim began more
than `SEND_S` ago by Redis's clock, Redis refuses its sender, because another sender may have deleted the row and the
receipt since then. The guarantee requires that the clocks of a cluster's nodes differ by less than `CLAIM_S - SEND_S`.
The guarantee does not cover tasks that Redis itself loses.
"""

from taskq_core.client.outbox.delivery import Delivered, Delivery
from taskq_core.client.outbox.faults import table_fault
from taskq_core.client.outbox.sender import OutboxSender
from taskq_core.client.outbox.table import Outbox, OutboxFigures, OutboxRow, OutboxTable
