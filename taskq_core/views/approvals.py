"""Signed links by which people answer waiting tasks, for example from an e-mail, and the page of such a link.

A link names the task, its generation and the number of its wait. So only the first answer counts, whether it comes
through a link, the admin or the API, and a later task with the same id gets none. Mail scanners follow links, so a GET
only shows the page, and only the POST of its form answers.
"""

import hmac
import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from datetime import timedelta
from html import escape
from types import MappingProxyType
from typing import Any, Required, TypedDict
from urllib.parse import quote

from taskq_core.app import TaskQ
from taskq_core.broker.operations.steps import read_steps, signal
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.codec import check_step_name, encode_value
from taskq_core.errors import BrokerError, ConfigurationError
from taskq_core.execution.context import TaskContext
from taskq_core.execution.steps import next_receive
from taskq_core.settings import Duration, seconds
from taskq_core.settings.language import gettext, marked
from taskq_core.telemetry import current_traceparent

logger = logging.getLogger("taskq.audit")

APPROVE_OR_REJECT: Mapping[str, object] = MappingProxyType({marked("Approve"): True, marked("Reject"): False})
WEEK = timedelta(days=7)
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address is a secret: it allows the user to answer
}
_PAGE = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><style>button {{ font: inherit; padding: 0.4em 1.2em }}</style>
<title>{title}</title>
<body style="font: 1.1rem system-ui; max-width: 32rem; margin: 15vh auto; padding: 0 1rem">
<h1>{title}</h1>{body}
"""
_ENDED = (410, marked("The task has ended and needs no answer any more."))
_AWAY = (503, marked("The service does not answer at the moment. Please try again in a minute."))
_REFUSED = (409, marked("The task cannot take your answer. Please tell the sender of this link."))
_OUTCOMES: Mapping[str, tuple[int, str]] = {
    "ok": (200, marked("Your answer is recorded. Thank you.")),
    "answered": (409, marked("This question was already answered, or the task no longer waits for an answer.")),
    "expired": (410, marked("This link has expired.")),
    "invalid": (404, marked("This link is not valid.")),
    "away": _AWAY,
    "full": _REFUSED,
    "lost": _REFUSED,
}

Page = tuple[int, str]
"""Response to the request of a link: the HTTP status and the HTML page."""


class LinkOptions(TypedDict, total=False):
    """Options of a link.

    Attributes:
        question: The question that the page shows.
        choices: The value that each button sends, by its label. By default, "Approve" sends True and "Reject" False.
        valid_for: Time after which the link expires, by default a week.
    """

    question: Required[str]
    choices: Mapping[str, object]
    valid_for: Duration


def link_token(context: TaskContext, name: str, options: LinkOptions, *, secret: bytes) -> str:
    """Return the signed content of a link that answers the next `receive` of this name.

    Raises:
        StepError: A value has no JSON form, the name is not valid, or the function was called without a worker.
        ConfigurationError: `choices` is empty, or the time is not valid.
    """
    choices = options.get("choices", APPROVE_OR_REJECT)
    if not choices:
        raise ConfigurationError("approval_url needs at least one choice, such as choices={'Approve': True}")
    content = {
        "queue": context.queue,
        "id": context.id,
        "name": check_step_name("name of a signal", name),
        "until": SYSTEM_CLOCK.time() + seconds("valid_for", options.get("valid_for", WEEK), allow_zero=False),
        "question": options["question"],
        "choices": {label: encode_value(f"choice {label!r}", value).decode() for label, value in choices.items()},
    }
    content["number"], content["generation"] = next_receive(context, name)
    data = json.dumps(content, ensure_ascii=False).encode(errors="replace")
    return _signed(urlsafe_b64encode(data), secret).decode()


def _signed(data: bytes, secret: bytes) -> bytes:
    return data + b"." + hmac.digest(secret, b"taskq approval " + data, "sha256").hex().encode()


def _content(token: str, secrets: Iterable[bytes]) -> dict[str, Any] | None:
    """Return the content of a token, None if none of the secrets has signed it."""
    signed = token.encode(errors="replace")
    data = signed.partition(b".")[0]
    is_valid = any(hmac.compare_digest(signed, _signed(data, each)) for each in secrets)
    return json.loads(urlsafe_b64decode(data)) if is_valid else None


def answer(app: TaskQ, token: str, secrets: Iterable[bytes], choice: str | None) -> RequestPlan[Page]:
    """Return the page for a link. If a button was pressed, send its value to the task first.

    Args:
        app: The queue application.
        token: The token of the link.
        secrets: The secrets that may have signed it.
        choice: The label of the button that was pressed (a POST). None: only show the page (a GET).
    """
    content = _content(token, secrets)
    if content is None:
        return _page("", "invalid")
    if content["until"] < SYSTEM_CLOCK.time():
        return _page(content["question"], "expired")
    queue, task_id, name, number = (
        app.runtime.keys.queue(content["queue"]),
        content["id"],
        content["name"],
        content["number"],
    )
    generation = content["generation"]
    value = content["choices"].get(choice)
    try:
        if value is not None:
            outcome = yield from ask(
                signal(
                    queue,
                    task_id,
                    name,
                    value.encode(),
                    number=number,
                    generation=generation,
                    traceparent=current_traceparent(),
                    confirm=app.confirmation(),
                )
            )
            facts = (outcome, queue.name, task_id, name, choice)
            logger.info("task answered by a link: outcome=%s queue=%r id=%r name=%r choice=%r", *facts)
        else:
            record = yield from ask(read_steps(queue, task_id))
            outcome = "answered" if int(record.get(f"n:{name}", 0)) >= number else "open"
            if record and generation.encode() != record["of"] and f"g:{generation}" not in record:
                outcome = "missing"
    except BrokerError:
        outcome = "away"
    return _page(content["question"], outcome, content["choices"])


def _page(question: str, outcome: str, choices: Iterable[str] = ()) -> Page:
    status, text = _OUTCOMES.get(outcome, _ENDED)
    title, body = (question, f"<p>{escape(gettext(text))}</p>") if question else (gettext(text), "")
    if outcome == "open":
        buttons = (f'<button formaction="?choice={quote(each)}">{escape(gettext(each))}</button>' for each in choices)
        status, body = 200, f'<form method="post">{" ".join(buttons)}</form>'
    return status, _PAGE.format(title=escape(title), body=body)
