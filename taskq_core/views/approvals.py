"""Signed links by which people answer waiting tasks, for example from an e-mail, and the page of such a link.

A link names the task, its generation and the number of its wait or question. So only the first answer counts, whether
it comes through a link, the admin or the API, and a later task with the same id gets none. Mail scanners follow links,
so a GET only shows the page, and only the POST of its form answers.
"""

import hmac
import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from datetime import timedelta
from html import escape
from types import MappingProxyType
from typing import Any, TypedDict
from urllib.parse import quote

from msgspec.json import decode

from taskq_core.app import TaskQ
from taskq_core.broker.operations.steps import Record, encode_answer, read_steps, signal
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.codec import check_answer, check_step_name, encode_result, encode_value
from taskq_core.errors import BrokerError, ConfigurationError, StepError
from taskq_core.execution.context import TaskContext
from taskq_core.execution.steps import next_receive
from taskq_core.handles.questions import Question, open_questions
from taskq_core.settings import Duration, seconds
from taskq_core.settings.language import gettext, marked
from taskq_core.telemetry import current_traceparent
from taskq_core.views.answer_forms import AnswerField, answer_form
from taskq_core.wire import QueueKeys

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
    "early": (409, marked("The task has not asked yet, or has ended. Please try again in a minute.")),
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
        question: Title of the page. By default the name of the question. A wait without `ask` needs it.
        choices: The value that each button sends, by its label. By default, the page has a form for the type of the
            answer; for a wait without `ask`, "Approve" sends True and "Reject" False.
        valid_for: Time after which the link expires, by default a week.
        by: Who gets the link. The task reads it as `Answer.by`.
    """

    question: str
    choices: Mapping[str, object]
    valid_for: Duration
    by: str


def link_token(context: TaskContext, name: str, options: LinkOptions, *, secret: bytes) -> str:
    """Return the signed content of a link that answers the next `receive` of this name.

    Raises:
        StepError: A value has no JSON form, the name is not valid, or the function was called without a worker.
        ConfigurationError: `choices` is empty, or the time is not valid.
    """
    choices = options.get("choices")
    if choices is not None and not choices:
        raise ConfigurationError("approval_url needs at least one choice, such as choices={'Approve': True}")
    content: dict[str, Any] = {
        "queue": context.queue,
        "id": context.id,
        "name": check_step_name("name of a signal", name),
        "until": SYSTEM_CLOCK.time() + seconds("valid_for", options.get("valid_for", WEEK), allow_zero=False),
    }
    content.update((each, text) for each in ("question", "by") if (text := options.get(each)) is not None)
    if choices is not None:
        content["choices"] = {
            label: encode_value(f"choice {label!r}", value).decode() for label, value in choices.items()
        }
    content["number"], content["asked"], content["generation"] = next_receive(context, name)
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


def answer(app: TaskQ, token: str, secrets: Iterable[bytes], pressed: Mapping[str, str] | None) -> RequestPlan[Page]:
    """Return the page for a link. If a button was pressed, send the answer to the task first.

    Args:
        app: The queue application.
        token: The token of the link.
        secrets: The secrets that may have signed it.
        pressed: The fields of the form, with the label of the button as `choice` (a POST). None: only show the page.
    """
    content = _content(token, secrets)
    if content is None:
        return _page("", "invalid")
    link = _Link(app.runtime.keys.queue(content["queue"]), content)
    if content["until"] < SYSTEM_CLOCK.time():
        return _page(link.title, "expired")
    try:
        record = yield from ask(read_steps(link.queue, link.task_id))
        key = link.key(record)
        asked = next((each for each in open_questions(link.queue, link.task_id, record) if each.key == key), None)
        is_other = bool(record) and link.generation.encode() != record["of"] and f"g:{link.generation}" not in record
        # The record of a running task does not contain its fence yet, but `signal` knows the task.
        if is_other and (pressed is None or asked is not None):
            return _page(link.title, "missing")
        if asked is not None:
            return (yield from _answer_question(app, link, asked, pressed))
        if f"q:{key}" in record:
            return _page(link.title, "answered")
        if "question" not in content:
            return _page(link.title, "early")
        return (yield from _answer_wait(app, link, record, pressed))
    except BrokerError:
        return _page(link.title, "away")


class _Link:
    """The content of a link."""

    def __init__(self, queue: QueueKeys, content: dict[str, Any]) -> None:
        self.queue = queue
        self.task_id: str = content["id"]
        self.name: str = content["name"]
        self.title: str = content.get("question", content["name"])
        self.generation: str = content["generation"]
        self.number: int = content["number"]
        self.by: str = content.get("by", "")
        self.choices: Mapping[str, str] = content.get("choices", {})
        self._asked: int | None = content.get("asked")

    def key(self, record: Record) -> str:
        """Return the key of the question that the link answers.

        A link from before the task asked questions counts the waits for a signal. Those that are over are no questions.
        """
        asked = self.number - int(record.get(f"n:{self.name}", 0)) if self._asked is None else self._asked
        return f"{self.name}#{asked}"

    def send(
        self, app: TaskQ, name: str, value: bytes, choice: str, *, number: int = 0, question: int = 0
    ) -> RequestPlan[str]:
        """Send a value to the task, and return the outcome."""
        outcome = yield from ask(
            signal(
                self.queue,
                self.task_id,
                name,
                value,
                generation=self.generation,
                traceparent=current_traceparent(),
                confirm=app.confirmation(),
                number=number,
                question=question,
            )
        )
        facts = (outcome, self.queue.name, self.task_id, self.name, choice)
        logger.info("task answered by a link: outcome=%s queue=%r id=%r name=%r choice=%r", *facts)
        return outcome


def _answer_wait(app: TaskQ, link: _Link, record: Record, pressed: Mapping[str, str] | None) -> RequestPlan[Page]:
    """Return the page for a wait without a question. Send the value of the pressed button first."""
    choices = link.choices or {label: encode_result(value).decode() for label, value in APPROVE_OR_REJECT.items()}
    choice = (pressed or {}).get("choice", "")
    if choice in choices:
        outcome = yield from link.send(app, link.name, choices[choice].encode(), choice, number=link.number)
    else:
        outcome = "answered" if int(record.get(f"n:{link.name}", 0)) >= link.number else "open"
    buttons = (f'<button formaction="?choice={quote(each)}">{escape(gettext(each))}</button>' for each in choices)
    return _page(link.title, outcome, f'<form method="post">{" ".join(buttons)}</form>')


def _answer_question(app: TaskQ, link: _Link, asked: Question, pressed: Mapping[str, str] | None) -> RequestPlan[Page]:
    """Return the page for a question. Send the answer in the form first."""
    form, problem = answer_form(asked.answer_schema), ""
    buttons = tuple(link.choices) or form.buttons
    choice = (pressed or {}).get("choice", "")
    if pressed is not None and choice in buttons:
        if pressed.get("number", str(asked.number)) != str(asked.number):
            return _page(link.title, "answered")
        try:
            value = decode(link.choices[choice]) if link.choices else form.read(choice, pressed)
            data = check_answer(asked.name, value, asked.answer_schema)
        except StepError as error:
            problem = str(error)
        else:
            stored = encode_answer(link.by, data, current_traceparent())
            outcome = yield from link.send(app, asked.key, stored, choice, question=asked.number)
            return _page(link.title, outcome)
    facts = "".join(f"<dt>{escape(name)}<dd>{escape(_shown(value))}" for name, value in asked.asked.items())
    inputs = "" if link.choices else "".join(map(_input, form.fields))
    row = " ".join(f'<button name="choice" value="{escape(each)}">{escape(gettext(each))}</button>' for each in buttons)
    body = f'<form method="post"><input type="hidden" name="number" value="{asked.number}">{inputs}<p>{row}</form>'
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return _page(link.title, "wrong" if problem else "open", f"<dl>{facts}</dl>{alert}{body}")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else encode_result(value).decode()


def _input(field: AnswerField) -> str:
    """Return the HTML of a field of the form."""
    name, value = f'name="{escape(field.name)}"', escape(field.initial)
    if field.kind == "choice":
        options = "".join(f'<option value="{escape(data)}">{escape(text)}' for data, text in field.choices)
        control = f"<select {name}>{'' if field.is_required else '<option>'}{options}</select>"
    elif field.kind == "json":
        control = f'<textarea {name} rows="6" cols="40" spellcheck="false">{value}</textarea>'
    elif field.kind == "checkbox":
        control = f'<input type="checkbox" {name} value="1"{" checked" if value else ""}>'
    else:
        kind = {"integer": 'type="number"', "number": 'type="number" step="any"'}.get(field.kind, 'type="text"')
        control = f'<input {kind} {name} value="{value}">'
    return f"<p><label>{escape(field.label)} {control}</label>"


def _page(title: str, outcome: str, form: str = "") -> Page:
    """Return the page for the outcome of a request. `form` is the HTML of an open question."""
    if outcome in ("open", "wrong"):
        return 200 if outcome == "open" else 400, _PAGE.format(title=escape(title), body=form)
    status, text = _OUTCOMES.get(outcome, _ENDED)
    title, body = (title, f"<p>{escape(gettext(text))}</p>") if title else (gettext(text), "")
    return status, _PAGE.format(title=escape(title), body=body)
