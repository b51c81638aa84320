"""Encode an exception of a task process as JSON, and rebuild it in the worker.

taskq's own exceptions keep their class, text and attributes. Of another exception, the class is looked up only in
loaded modules; no module is imported for it. The rebuilt exception is an instance of a subclass with the same name, so
`except`, `retry_on` and error handlers recognize it. It has the original text, and its traceback in a note. Of its
attributes, only those of an exception derived from taskq's are transferred.
"""

import inspect
import json
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from taskq_core import errors
from taskq_core.handles.attempts import traceback_text
from taskq_core.service.user_code import readable, text_of

_OWN: Mapping[str, type[BaseException]] = dict(
    inspect.getmembers(errors, lambda each: isinstance(each, type) and issubclass(each, BaseException))
)
"""The exceptions of taskq by the names of their classes."""
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
    own = next((each.__name__ for each in kind.__mro__ if _OWN.get(each.__name__) is each), None)
    if own is not None:
        facts |= {"own": own, **_state(error)}
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


def _state(error: BaseException) -> dict[str, Any]:
    try:
        attributes = {name: _packed(value) for name, value in vars(error).items() if name != "__notes__"}
        made_from = error.__reduce__()[1]  # the arguments with which pickle calls the class
        return {"made_from": _packed(made_from), "args": _packed(error.args), "attributes": attributes}
    except BaseException:  # a list in an attribute contains itself, or code of a derived class fails
        return {"args": _packed(()), "attributes": {}}


def _packed(value: object) -> Any:
    """Return an attribute in a form that JSON can store. Values of unusual types become their text."""
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [_packed(each) for each in value]}
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, timedelta):
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    return text_of(value)


def _unpacked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "datetime":
        return datetime.fromisoformat(content)
    if kind == "timedelta":
        return timedelta(*content)
    items = [_unpacked(each) for each in content]
    return tuple(items) if kind == "tuple" else items


def _rebuilt(facts: dict[str, Any]) -> BaseException:
    own = _OWN.get(facts.get("own", ""))
    error: BaseException
    if (
        own is not None
        and "made_from" in facts
        and (own.__module__, own.__qualname__) == (facts["module"], facts["qualname"])
    ):
        error = own(*_unpacked(facts["made_from"]))
    else:
        error = _stand_in(facts, own)
    if own is not None:
        error.args = _unpacked(facts["args"])
        vars(error).update({name: _unpacked(value) for name, value in facts["attributes"].items()})
    is_control = own is not None and issubclass(own, errors.TaskControl)
    if facts["traceback"] and not is_control:
        error.add_note(f"In its own process:\n{facts['traceback']}")
    if "cause" in facts:
        error.__cause__ = _rebuilt(facts["cause"])
    if "context" in facts:
        error.__context__ = _rebuilt(facts["context"])
        error.__suppress_context__ = facts["is_context_hidden"]
    return error


def _stand_in(facts: dict[str, Any], own: type[BaseException] | None) -> BaseException:
    text = facts["text"]
    bases: list[type[BaseException]] = [Exception] if own is None else [own, Exception]
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
        # Not `kind.__new__`: with two built-in bases, it may find the wrong one.
        made: BaseException = type.__call__(kind, *given)
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
