"""Send e-mail in a worker: Django's `send_mail`, and everything that uses it, enqueues a task for each message.

::

    EMAIL_BACKEND = "taskq_django.mail.EmailBackend"
    TASKQ = {"EMAIL": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend"}}

or, from Django 6.1 on::

    MAILERS = {
        "default": {"BACKEND": "taskq_django.mail.EmailBackend", "OPTIONS": {"using": "smtp"}},
        "smtp": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": {"host": "..."}},
    }
"""

from taskq_django.mail.backend import TASK, EmailBackend
from taskq_django.mail.record import MailContentError

__all__ = ["TASK", "EmailBackend", "MailContentError"]
