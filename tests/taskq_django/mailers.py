"""E-mail backends that a worker sends through."""

import smtplib
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from taskq_django.mail import EmailBackend

sent: list[EmailMessage] = []
errors: Iterator[Exception | None] = iter(())


class RecordingBackend(BaseEmailBackend):
    """Records sent messages. Each error that a test prepares makes one message fail."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        sent.extend(email_messages)
        error = next(errors, None)
        if error is not None:
            raise error
        return len(email_messages)


class Ours(EmailBackend):
    """A backend that enqueues, under another name."""


def refused(*codes: int) -> smtplib.SMTPRecipientsRefused:
    return smtplib.SMTPRecipientsRefused({f"{code}@example.com": (code, b"no") for code in codes})
