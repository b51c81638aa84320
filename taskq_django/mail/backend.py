"""Define the e-mail backend that enqueues a task for each message, and the task that sends the message."""

import logging
import smtplib
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from django.core import mail as django_mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string

from taskq_core import EnqueueError, PayloadTooLargeError, Signature, SkipRetry
from taskq_core.client.preparer import PAYLOAD_MAX
from taskq_django.app import taskq
from taskq_django.mail.record import Mail, to_message, to_record

logger = logging.getLogger("taskq.mail")

TASK = "taskq:send-mail"
"""Name of the task that sends one message."""


class EmailBackend(BaseEmailBackend):
    """Lets a worker send e-mail: each message is a task, enqueued as the setting `ENQUEUE` says.

    Args:
        fail_silently: Log instead of raising when a task cannot be enqueued. It does not change the task itself, which
            is retried and archived like any other.
        alias: Name of this mailer in `MAILERS`, passed by Django.
        using: Name of the mailer in `MAILERS` that sends in the worker.
        username, password: Always refused, because they would be stored in Redis.
        **options: Task options, such as `queue`. They override `TASKQ["EMAIL"]["OPTIONS"]`.

    Raises:
        ImproperlyConfigured: The sending backend is not set, does not exist, or is this class.
        ConfigurationError: A task option is unknown or its value is not usable.
    """

    def __init__(
        self,
        fail_silently: bool = False,
        *,
        alias: str | None = None,
        using: str | None = None,
        username: str | None = None,
        password: str | None = None,
        **options: Any,
    ) -> None:
        options.pop("_ignore_unknown_kwargs", None)  # internal option that Django 6.1 passes
        super().__init__()
        self.alias = alias
        self.fail_silently = fail_silently
        if username or password:
            raise ImproperlyConfigured(
                "a user name or password cannot be passed with a message, because it would be stored in Redis; "
                "configure it for the sending backend"
            )
        self._using = _checked_target(alias, using)
        self._task = send.using(**{**taskq.settings.email.options, **options})

    @property
    def queue(self) -> str:
        """Queue that messages are enqueued to."""
        return self._task.options.queue

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Enqueue a task for each message that has a recipient. Return their number.

        All messages are checked before the first is enqueued. `ENQUEUE` decides when they are sent to Redis.

        Raises:
            MailContentError: A message has content that cannot be stored as JSON.
            PayloadTooLargeError: A message exceeds 16 MiB as JSON. Attachments grow by a third there (base64).
            EnqueueError: Redis refused the task or could not be reached, unless `fail_silently`.
        """
        calls = [
            self._task.s(mail=to_record(message), using=self._using)
            for message in email_messages or ()
            if message.recipients()
        ]
        if len(calls) > 1:
            for call in calls:
                _check_size(call)
        count = 0
        for call in calls:
            try:
                taskq.client.enqueue(call)
            except EnqueueError as error:
                if not self.fail_silently:
                    raise
                _log_loss(error)
            else:
                count += 1
        return count


@taskq.task(name=TASK)
def send(mail: Mail, using: str = "") -> None:
    """Send one message through the mailer `using` of `MAILERS`, or through `TASKQ["EMAIL"]["BACKEND"]`."""
    target = django_mail.mailers[using] if using else _sending_class()()
    try:
        target.send_messages([to_message(mail)])
    except smtplib.SMTPRecipientsRefused as error:
        if all(500 <= code < 600 for code, _ in error.recipients.values()):
            raise SkipRetry("the server permanently refuses all recipients") from error
        raise


_is_logging: ContextVar[bool] = ContextVar("taskq_mail_is_logging", default=False)


def _log_loss(error: EnqueueError) -> None:
    """Log that a message was not enqueued. Do not log while the log itself sends mail, which would never end."""
    if not _is_logging.get():
        token = _is_logging.set(True)
        try:
            logger.warning("an e-mail was not enqueued: %s", error)
        finally:
            _is_logging.reset(token)


def _checked_target(alias: str | None, using: str | None) -> str:
    """Check and return the name of the sending mailer, or "" for `TASKQ["EMAIL"]["BACKEND"]`."""
    if alias is None:
        if using is not None:
            raise ImproperlyConfigured("'using' only works for a backend in MAILERS, and this backend is not there")
        _sending_class()
        return ""
    if using is None:
        raise _refused(alias, "OPTIONS must contain 'using', the name of the mailer that sends in the worker.")
    config = django_mail.mailers.settings.get(using)
    if config is None:
        raise _refused(alias, f"'using' names the mailer {using!r}, which is not in MAILERS.")
    path = config.get("BACKEND")
    if path is not None and _is_ours(import_string(path)):
        raise _refused(alias, f"'using' names the mailer {using!r}, which also enqueues and would never send.")
    return using


def _refused(alias: str, problem: str) -> ImproperlyConfigured:
    return django_mail.InvalidMailer(problem, alias=alias)


def _sending_class() -> type[BaseEmailBackend]:
    path = taskq.settings.email.backend
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"TASKQ['EMAIL']['BACKEND']: {error}") from error
    if _is_ours(found):
        raise ImproperlyConfigured(f"TASKQ['EMAIL']['BACKEND'] is {path!r}, which enqueues and would never send")
    return found  # type: ignore[no-any-return]


def _is_ours(backend: Any) -> bool:
    return isinstance(backend, type) and issubclass(backend, EmailBackend)


def _check_size(call: Signature[Any]) -> None:
    size = len(call.task.encode(call.args, call.kwargs))
    if size > PAYLOAD_MAX:
        raise PayloadTooLargeError(call.task.name, size, PAYLOAD_MAX)
