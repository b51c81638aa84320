"""Queues, tasks, workflows, workers and periodic tasks in Django's admin.

The pages are Django's own lists, forms and actions over rows that are read from Redis. Each page is a mixin for any
`ModelAdmin`. Only the page of a task shows its full arguments and its result. If Redis does not answer, each page
reports that.
"""

from taskq_django.admin.base import RedisAdminMixin
from taskq_django.admin.live import LiveMixin
from taskq_django.admin.outbox import OutboxTaskAdmin, OutboxTaskAdminMixin
from taskq_django.admin.periodic import PeriodicTaskAdmin, PeriodicTaskAdminMixin
from taskq_django.admin.questions import QuestionAdmin, QuestionAdminMixin
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
    "QuestionAdmin",
    "QuestionAdminMixin",
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
