"""Transactional enqueue: a task is written to the user's database before it is sent to Redis.

The row of a task is written in the transaction of its data, so either both are stored or neither. Rows are moved to
Redis right after the commit. A relay in every worker moves the rows that were missed. Adapters provide the table; this
package has the rules::

    row written, in the user's transaction
      |  commit
    claimed       for `CLAIM_S`, by one sender at a time
      |
    delivered     one script stores tasks and leaves a receipt for each
      |
    row deleted
      |
    receipt given back

A crash at any arrow neither loses the task nor stores it twice. While the row exists, its claim expires and another
sender takes it; the receipt shows that sender which tasks are stored already. A sender that was suspended beyond its
claim is refused by Redis's clock (`SEND_S` after the claim began), because the row and its receipt may be deleted. The
guarantee holds while the clocks of a cluster's nodes agree to within `CLAIM_S - SEND_S`, and for tasks that Redis
keeps.
"""

from taskq_core.client.outbox.delivery import Delivered, Delivery
from taskq_core.client.outbox.sender import OutboxSender
from taskq_core.client.outbox.table import Outbox, OutboxFigures, OutboxRow, OutboxTable
