"""Transactional enqueue: a task is written to the user's database before it is sent to Redis.

The row of a task is written in the same transaction as the user's data, so either both are stored or neither. After the
commit, the client moves the row to Redis at once. If that fails, the relay that runs in every worker moves the row
later. Adapters provide the table. This package implements the protocol::

    row written, in the user's transaction
      |  commit
    claimed       for `CLAIM_S`, by one sender at a time
      |
    delivered     one script stores tasks and leaves a receipt for each
      |
    row deleted
      |
    receipt given back

A crash at any arrow neither loses the task nor stores it twice. While the row exists, its claim expires, and another
sender claims the row. The receipt shows the other sender which tasks are already stored. Redis refuses a sender whose
claim began more than `SEND_S` ago by Redis's clock, because the row and its receipt may already be deleted. The
guarantee requires that the clocks of a cluster's nodes differ by less than `CLAIM_S - SEND_S`. It does not cover tasks
that Redis itself loses.
"""

from taskq_core.client.outbox.delivery import Delivered, Delivery
from taskq_core.client.outbox.sender import OutboxSender
from taskq_core.client.outbox.table import Outbox, OutboxFigures, OutboxRow, OutboxTable
