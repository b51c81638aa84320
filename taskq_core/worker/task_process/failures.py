"""Encode an exception of a task process as JSON, and rebuild it in the worker.

The class is looked up only in loaded modules; no module is imported for it. The rebuilt exception is an instance of a
subclass with the same name, so `except`, `retry_on` and error handlers recognize it. It has the original text, and its
traceback in a note. Its attributes are not transferred.
"""

import json
import sys
from datetime import timedelta
from typing import Any

from taskq_core.errors import Discard, Retry, SkipRetry, Snooze
from taskq_core.handles.attempts import traceback_text
from taskq_core.service.user_code import readable, text_of

_DEEPEST = 3
"""Maximum depth of encoded causes and nested groups."""
_MEMBERS_MOST = 10
"""Maximum number of encoded exceptions of a group. The group's traceback contains all exceptions."""


def encode_failure(error: BaseException) -> bytes:
    """Encode an exception as JSON for the worker."""
    return json.dumps(_facts(readable(error), _DEEPEST)).encode()


def _facts(error: BaseException, deepest: int) -> dict[str, Any]:
    kind = type(error)
    facts: dict[str, Any] = {
        "module": kind.__module__,
        "qualname": kind.__qualname__,
        "text": text_of(error),
        "traceback": traceback_text(error),
    }
    for steering in (Retry, Snooze, SkipRetry, Discard):
        if isinstance(error, steering):
            facts["control"] = steering.__name__
    if isinstance(error, Retry | Snooze):
        after: Any = error.after
        facts["after"] = after.total_seconds() if isinstance(after, timedelta) else after
        if facts["after"] is not None and not isinstance(facts["after"], int | float):
            # Send an invalid `after` as text, so that the worker can report it.
            facts["after"] = text_of(after)[:80]
    if isinstance(error, SkipRetry):
        facts["reason"] = text_of(error.reason)
    if isinstance(error, BaseExceptionGroup) and deepest:
        # The traceback of an exception group contains the tracebacks of its members.
        members = error.exceptions[:_MEMBERS_MOST]
        facts["members"] = [{**_facts(each, deepest - 1), "traceback": ""} for each in members]
        facts["message"] = text_of(error.message)
    if error.__cause__ is not None and deepest:
        facts["cause"] = _facts(error.__cause__, deepest - 1)
    elif error.__context__ is not None and deepest:
        facts["context"] = _facts(error.__context__, deepest - 1)
        # `raise ... from None` hides the context in tracebacks, but the context still decides about retries.
        facts["is_context_hidden"] = error.__suppress_context__
    return facts


def decode_failure(data: bytes) -> BaseException:
    """Return the exception that `encode_failure` wrote. Never raises, even if code of the exception's class fails."""
    facts = json.loads(data)
    try:
        return readable(_rebuilt(facts))
    except BaseException:
        return _plain(facts)


def _rebuilt(facts: dict[str, Any]) -> BaseException:
    control = facts.get("control")
    error: BaseException
    if control == Retry.__name__:
        error = Retry(after=facts["after"])
    elif control == Snooze.__name__:
        error = Snooze(after=facts["after"])
    elif control == SkipRetry.__name__:
        error = SkipRetry(facts["reason"])
    elif control == Discard.__name__:
        error = Discard(facts["text"]) if facts["text"] else Discard()
    else:
        error = _stand_in(facts)
        if facts["traceback"]:
            error.add_note(f"In its own process:\n{facts['traceback']}")
    if "cause" in facts:
        error.__cause__ = _rebuilt(facts["cause"])
    if "context" in facts:
        error.__context__ = _rebuilt(facts["context"])
        error.__suppress_context__ = facts["is_context_hidden"]
    return error


def _stand_in(facts: dict[str, Any]) -> BaseException:
    text = facts["text"]
    bases: list[type[BaseException]] = [Exception]
    given: tuple[Any, ...] = (text,)
    if "members" in facts:
        members = [_rebuilt(each) for each in facts["members"]]
        of_exceptions = all(isinstance(each, Exception) for each in members)
        bases.insert(0, ExceptionGroup if of_exceptions else BaseExceptionGroup)
        given = (facts["message"], members)
    known = _known_class(facts["module"], facts["qualname"])
    if known is not None:
        bases.insert(0, known)
    for base in bases:
        made = _made(base, facts, given if issubclass(base, BaseExceptionGroup) else (text,))
        if made is not None:
            return made
    return _plain(facts)


def _plain(facts: dict[str, Any]) -> BaseException:
    return Exception(f"{facts['qualname']}: {facts['text']}")


def _made(base: type[BaseException], facts: dict[str, Any], given: tuple[Any, ...]) -> BaseException | None:
    """Return an instance of a new subclass of the exception's class, or None if that is not possible."""
    module, qualname, text = facts["module"], facts["qualname"], facts["text"]
    names = {"__module__": module, "__qualname__": qualname, "__str__": lambda self: text, "__init__": _init}
    try:
        kind: Any = type(qualname.rpartition(".")[2], (base,), names)
        made: BaseException = kind.__new__(kind, *given)
    except BaseException:
        return None
    made.args = given
    return made


def _init(self: BaseException, *args: object) -> None:
    """Replace the constructor of the exception's class, which may need other arguments."""


def _known_class(module: str, qualname: str) -> type[BaseException] | None:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None
