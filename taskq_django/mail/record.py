"""Convert an `EmailMessage` to JSON data for the worker, and back to a message there.

The data has the parts of the message rather than its rendered MIME, because backends of mail services read the parts.
Bytes are base64 in the JSON. `Message-ID` and `Date` are set when the message is enqueued, so that each attempt sends
the same message and mail servers can detect a duplicate.
"""

import email
import email.policy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message, MIMEPart
from email.mime.base import MIMEBase
from functools import cache
from typing import Any

import django
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils.functional import Promise

from taskq_core import TaskQError

logger = logging.getLogger("taskq.mail")

_SUBTYPES = ("mixed_subtype", "alternative_subtype")
"""Attributes of Django 5.2's messages that set MIME subtypes, and that a subclass or instance may override."""


class MailContentError(TaskQError, ValueError):
    """A message has content that cannot be stored as JSON. Nothing was enqueued. The error names only the part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailPart:
    """An attachment or an alternative: text, or bytes."""

    filename: str | None = None
    mimetype: str | None = None
    """MIME type of `data`. None: `data` is a whole MIME part, including headers."""
    text: str | None = field(default=None, repr=False)
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One message. `extra` holds further attributes, which backends of mail services read."""

    subject: str = field(repr=False)
    body: str = field(repr=False)
    from_email: str = field(repr=False)
    to: list[str] = field(default_factory=list, repr=False)
    cc: list[str] = field(default_factory=list, repr=False)
    bcc: list[str] = field(default_factory=list, repr=False)
    reply_to: list[str] = field(default_factory=list, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    subtype: str = "plain"
    encoding: str | None = None
    alternatives: list[MailPart] | None = None
    """None: the message is an `EmailMessage`, which has none."""
    attachments: list[MailPart] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)


def to_record(message: EmailMessage) -> Mail:
    """Convert a message to data. The message is also rendered once, so that Django's errors are raised here.

    Raises:
        MailContentError: The message has content that cannot be stored as JSON.
    """
    given: Any = message  # Any: callers may set its attributes to values of any type
    kind = type(message)
    if kind.message not in (EmailMessage.message, EmailMultiAlternatives.message):
        raise MailContentError(
            f"an e-mail of class {kind.__qualname__} renders its own MIME, which cannot be repeated in the worker; "
            "send it through another backend"
        )
    if given.encoding is not None and not isinstance(given.encoding, str):
        raise MailContentError(f"the encoding of an e-mail must be text, got {type(given.encoding).__qualname__}")
    rendered = message.message()
    headers = {str(name): str(value) for name, value in given.extra_headers.items()}
    known = {name.lower() for name in headers}
    headers |= {name: str(rendered[name]) for name in ("Message-ID", "Date") if name.lower() not in known}
    alternatives = getattr(given, "alternatives", None)
    return Mail(
        subject=str(given.subject),
        body=_text("body", given.body),
        from_email=str(given.from_email),
        to=[str(each) for each in given.to],
        cc=[str(each) for each in given.cc],
        bcc=[str(each) for each in given.bcc],
        reply_to=[str(each) for each in given.reply_to],
        headers=headers,
        subtype=given.content_subtype,
        encoding=given.encoding,
        alternatives=None if alternatives is None else [_part("alternative", (None, *each)) for each in alternatives],
        attachments=[_attachment(each) for each in given.attachments],
        extra=_extra(given),
    )


def to_message(mail: Mail) -> EmailMessage:
    """Return the message of the data."""
    message: Any = EmailMessage() if mail.alternatives is None else EmailMultiAlternatives()
    message.subject, message.body, message.from_email = mail.subject, mail.body, mail.from_email
    message.to, message.cc, message.bcc, message.reply_to = mail.to, mail.cc, mail.bcc, mail.reply_to
    message.extra_headers = dict(mail.headers)
    message.content_subtype, message.encoding = mail.subtype, mail.encoding
    for part in mail.alternatives or ():
        message.attach_alternative(_content(part), part.mimetype)
    # Do not use `attach` here, because it would guess the MIME types again.
    message.attachments = [_read_attachment(part) for part in mail.attachments]
    for name, value in mail.extra.items():
        if _may_be_extra(name):
            setattr(message, name, value)
    return message  # type: ignore[no-any-return]


def _attachment(attachment: Any) -> MailPart:
    if isinstance(attachment, Message):  # base class of MIMEBase and, since Django 6.0, of MIMEPart
        return MailPart(data=attachment.as_bytes())
    filename, content, mimetype = (*attachment, None, None)[:3]
    return _part("attachment", (filename, content, mimetype))


def _part(what: str, part: tuple[Any, Any, Any]) -> MailPart:
    filename, content, mimetype = part
    if not isinstance(mimetype, str) or "/" not in mimetype:
        raise MailContentError(
            f"an {what} of an e-mail has no MIME type; pass one to attach(filename, content, mimetype)"
        )
    name = None if filename is None else str(filename)
    if isinstance(content, EmailMessage):
        content = content.message()
    if isinstance(content, Message):
        content = content.as_bytes()
    if isinstance(content, bytes | bytearray | memoryview):
        return MailPart(filename=name, mimetype=mimetype, data=bytes(content))
    return MailPart(filename=name, mimetype=mimetype, text=_text(what, content))


def _text(what: str, value: object) -> str:
    if isinstance(value, bytes):  # decode as Django does when it renders a message
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str | Promise):
        raise MailContentError(f"the {what} of an e-mail must be text or bytes, got {type(value).__qualname__}")
    return str.__str__(value) if isinstance(value, str) else str(value)


def _content(part: MailPart) -> str | bytes:
    return part.text if part.text is not None else part.data or b""


def _read_attachment(part: MailPart) -> Any:
    if part.mimetype is not None:
        return (part.filename, _content(part), part.mimetype)
    read: Callable[..., Any] = email.message_from_bytes
    if django.VERSION >= (6, 0):
        return read(part.data or b"", _class=MIMEPart, policy=email.policy.default)
    return read(part.data or b"", _class=_ReadPart)


class _ReadPart(MIMEBase):
    """A parsed MIME part. Django 5.2 accepts only `MIMEBase` as an attachment with headers."""

    def __init__(self, policy: Any = email.policy.compat32) -> None:
        Message.__init__(self, policy=policy)


def _extra(message: Any) -> dict[str, Any]:
    """Return further attributes of a message, such as tags and metadata, which backends of mail services read."""
    found = {name: value for name, value in vars(message).items() if _may_be_extra(name)}
    stock = EmailMultiAlternatives if isinstance(message, EmailMultiAlternatives) else EmailMessage
    for name in _SUBTYPES:
        if hasattr(stock, name) and getattr(message, name) != getattr(stock, name):
            found[name] = getattr(message, name)
    plain = {}
    for name, value in found.items():
        if _is_plain(value):
            plain[name] = value
        else:
            logger.warning(
                "the attribute %r of an e-mail is dropped: %s has no JSON form", name, type(value).__qualname__
            )
    return plain


def _may_be_extra(name: str) -> bool:
    if name in _SUBTYPES:
        return True
    return not name.startswith("_") and not hasattr(EmailMultiAlternatives, name) and name not in _stock_fields()


@cache
def _stock_fields() -> frozenset[str]:
    return frozenset(vars(EmailMultiAlternatives())) | {"connection"}


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(type(key) is str and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in (str, int, bool)
