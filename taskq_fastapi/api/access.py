"""Access rules of the API: permissions, the audit log, and the visible parts of tasks."""

import base64
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

from taskq_core import ConfigurationError
from taskq_core.tasks.limits import HEADER as LIMITS
from taskq_core.views import check_json

logger = logging.getLogger("taskq.fastapi")
audit_logger = logging.getLogger("taskq.audit")

Redact = Callable[[str, str, Any], Any]
"""Called with the name of a task, the kind of a value (`payload`, `result`, `headers`, `error`, `traceback`,
`progress`) and the value; returns the value to show."""
Allowed = bool | Callable[..., bool | Awaitable[bool]]
"""Whether callers have a permission: a bool for all callers, or a FastAPI dependency that decides for each request."""
Who = Callable[..., str | Awaitable[str]]
"""A FastAPI dependency that returns the name of the caller."""
LISTED_BYTES = 16 * 1024
"""Maximum number of bytes of a payload or result in a list. The response for a single task has no such limit."""
REDACTION_FAILED = "[not shown: the redaction failed]"


@dataclass(frozen=True, slots=True)
class Shown:
    """Decides which parts of tasks the caller of one request may see, and redacts them.

    Attributes:
        payloads: Whether payloads, results and tracebacks are visible.
        redact: Replaces values before they are shown. None: values are shown as they are.
    """

    payloads: bool
    redact: Redact | None

    @property
    def may_ask_payloads(self) -> bool:
        """Whether the caller may search, edit and compare payloads. Each of these actions reveals their contents."""
        return self.payloads and self.redact is None

    def check_may_ask(self, what: str) -> None:
        """Refuse a request with 403 if it would reveal hidden payloads."""
        if not self.may_ask_payloads:
            raise HTTPException(
                403,
                f"{what} requires that the caller may see payloads without redaction; see the argument show_payloads",
            )

    def value(self, name: str, what: str, value: Any) -> Any:
        """Return the value as users may see it: unchanged, or changed by the function `redact` of the API."""
        if self.redact is None:
            return value
        try:
            shown = self.redact(name, what, value)
            check_json(shown)
            return shown
        except Exception:
            logger.exception("redact failed for the %s of a task %r; the value is not shown", what, name)
            return REDACTION_FAILED

    def headers(self, name: str, headers: Mapping[str, str]) -> Any:
        """Return the visible headers. The header of limits contains parts of the payload, so it may be hidden."""
        visible = {key: text for key, text in headers.items() if key != LIMITS or self.may_ask_payloads}
        return self.value(name, "headers", visible)

    def octets(
        self, name: str, what: str, data: bytes, *, most: int | None = None, size: int | None = None
    ) -> dict[str, Any]:
        """Return the bytes as JSON, text or base64, the first of these that is possible.

        Omit hidden bytes, more than `most` bytes, and bytes of which only a part was read: `size` is their number.
        """
        size = len(data) if size is None else size
        facts: dict[str, Any] = {"size": size}
        if not self.payloads:
            return {**facts, "omitted": "hidden"}
        if size > len(data) or (most is not None and size > most):
            return {**facts, "omitted": "large"}
        if not data:
            return {**facts, "format": "text", "value": ""}
        kind, value = _read(data)
        return {**facts, "format": kind, "value": self.value(name, what, value)}


def _read(data: bytes) -> tuple[str, Any]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "base64", base64.b64encode(data).decode()
    try:
        value = json.loads(text, parse_constant=_no_constant)
        check_json(value)
    except (ValueError, RecursionError):
        return "text", text
    return "json", value


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


class Audit:
    """Writes the actions of one caller to the audit log (logger `taskq.audit`), without payloads.

    Args:
        who: Name of the caller.
    """

    def __init__(self, who: str) -> None:
        self.who = who

    @contextmanager
    def action(self, action: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Log an action with its facts and outcome, even if it fails. The caller can add facts to the yielded dict."""
        outcome: dict[str, Any] = {}
        ended = "cut off"
        try:
            yield outcome
            ended = "done"
        except Exception as error:
            ended = type(error).__name__
            raise
        finally:
            fields = {**{name: value for name, value in facts.items() if value is not None}, **outcome}
            text = "".join(f" {name}={value!r}" for name, value in fields.items())
            audit_logger.info(
                "%s by %r: %s%s",
                action,
                self.who,
                ended,
                text,
                extra={"audit": {"action": action, "who": self.who, "outcome": ended, **fields}},
            )


@dataclass(frozen=True, slots=True)
class Access:
    """The access rules of a router, as dependencies of its routes.

    Attributes:
        shown: Returns the `Shown` of a request.
        may_change: Returns whether the caller of a request may make changes.
        change: Returns the `Audit` of a request that makes a change, or refuses it.
    """

    shown: Callable[..., Awaitable[Shown]]
    may_change: Callable[..., Awaitable[bool]]
    change: Callable[..., Awaitable[Audit]]


def access(*, read_only: Allowed, show_payloads: Allowed, redact: Redact | None, who: Who | None) -> Access:
    """Return the access rules for the arguments of a router."""
    is_read_only, sees_payloads = _allowed("read_only", read_only), _allowed("show_payloads", show_payloads)
    for name, hook in (("redact", redact), ("who", who)):
        if hook is not None and not callable(hook):
            raise ConfigurationError(f"{name} must be a function, got {type(hook).__name__}")

    async def shown(payloads: Annotated[bool, Depends(sees_payloads)]) -> Shown:
        return Shown(payloads=payloads is True, redact=redact)

    async def may_change(forbidden: Annotated[bool, Depends(is_read_only)]) -> bool:
        return forbidden is False

    async def change(
        request: Request,
        is_allowed: Annotated[bool, Depends(may_change)],
        name: Annotated[str, Depends(who or _address)],
    ) -> Audit:
        if not is_allowed:
            audit_logger.warning(
                "%s %r by %r: refused, because the API is read-only", request.method, request.url.path, str(name)
            )
            raise HTTPException(403, "this API is read-only")
        return Audit(str(name))

    return Access(shown=shown, may_change=may_change, change=change)


def _allowed(name: str, value: Allowed) -> Callable[..., Any]:
    if callable(value):
        return value
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True, False or a dependency, got {type(value).__name__}")

    async def fixed() -> bool:
        return value

    return fixed


async def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"
