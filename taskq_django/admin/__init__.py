"""Queues, tasks, workflows, workers and periodic tasks in Django's admin.

Django's own lists, forms and actions over rows that are read from Redis; each page is a mixin that can be put over
another `ModelAdmin`. Arguments and results are on a task's own page only. When Redis does not answer, the pages say so.
"""

from taskq_django.admin.base import RedisAdminMixin
from taskq_django.admin.live import LiveMixin
from taskq_django.admin.outbox import OutboxTaskAdmin, OutboxTaskAdminMixin
from taskq_django.admin.periodic import PeriodicTaskAdmin, PeriodicTaskAdminMixin
from taskq_django.admin.queues import QueueAdmin, QueueAdminMixin
from taskq_django.admin.tasks import TaskAdmin, TaskAdminMixin
from taskq_django.admin.workers import WorkerAdmin, WorkerAdminMixin
from taskq_django.admin.workflows import WorkflowAdmin, WorkflowAdminMixin

__all__ = [
    "LiveMixin",
    "OutboxTaskAdmin",
    "OutboxTaskAdminMixin",
    "PeriodicTaskAdmin",
    "PeriodicTaskAdminMixin",
    "QueueAdmin",
    "QueueAdminMixin",
    "RedisAdminMixin",
    "TaskAdmin",
    "TaskAdminMixin",
    "WorkerAdmin",
    "WorkerAdminMixin",
    "WorkflowAdmin",
    "WorkflowAdminMixin",
]
