"""Queues and tasks in Django's admin, to look at.

Staff with the permission to view them see a list of tasks by queue and state, a page for each task and a list of
queues. Nothing can be changed here. Arguments and results are on a task's own page only. When Redis does not answer,
the pages say so.
"""

from taskq_django.admin.outbox import OutboxTaskAdmin
from taskq_django.admin.queues import QueueAdmin
from taskq_django.admin.tasks import TaskAdmin

__all__ = ["OutboxTaskAdmin", "QueueAdmin", "TaskAdmin"]
