"""Say what does not fit, in types and places, never in values.

Texts of msgspec, of models and of a user's own checks may quote the input. Only the sentences known not to are passed
on; all others are replaced.
"""

import re
import types
import typing
from typing import Any

import msgspec

TOO_DEEP = "is nested too deeply or contains itself"

# What msgspec says without quoting the input. Anything else it says may hold a value and is replaced.
_SAFE = re.compile(
    r"Expected `[\w.| ]+`(?: (?:>=|<=|>|<) [-+.\de]+| that's a multiple of [-+.\de]+| of length [<>= \d]+)?"
    r"(?:, got `?[\w.| ]+`?(?: of length \d+)?)?"
    r"|Object missing required field `\w+`"
    r"|Invalid (?:UUID|decimal string|base64 encoded string|ISO8601 duration|RFC3339 encoded (?:datetime|date|time))"
    r"|(?:Integer value|Number|Duration) (?:is )?out of range"
)
_PATH = re.compile(r" - at `(key` in `)?\$([^`]*)`$")
_LONGEST_PLACE = 201
_WHOLE_TYPE = re.compile(r"Expected `[\w.| ]+`, got `([\w.| ]+)`")


class RefusedError(ValueError):
    """A refusal whose text is ours and therefore holds no value."""


def split_path(text: str) -> tuple[str, str | None]:
    """Split msgspec's text into what is wrong and where; None when it is the whole."""
    found = _PATH.search(text)
    if found is None:
        return text, None
    return text[: found.start()], found[2] + ("[key]" if found[1] else "")


def describe(exc: msgspec.ValidationError, hint: Any, at: str, got: type | None = None) -> str:
    """Say what did not fit `hint`, without the value."""
    head = split_path(str(exc))[0]
    cause = exc.__cause__
    if isinstance(cause, RefusedError):
        problem = str(cause)
    elif cause is not None:
        problem = f"refused by its own validation ({type(cause).__name__})"
    elif not at and (whole := _WHOLE_TYPE.fullmatch(head)):
        problem = f"expected {type_name(hint)}, got {got.__qualname__ if got else whole[1]}"
    elif _SAFE.fullmatch(head):
        problem = head[0].lower() + head[1:].replace("`", "")
    else:
        problem = f"not an allowed value of {type_name(hint)}"
    return problem + place(at)


def place(at: str) -> str:
    """Say where inside the value, if it is not the whole. Of a place a thousand levels down, the way there is cut."""
    if len(at) > _LONGEST_PLACE:
        at = f"{at[:_LONGEST_PLACE]}..."
    return f" at {at}" if at else ""


def describe_unreadable(exc: Exception) -> str:
    """Say why bytes could not be read at all."""
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    if isinstance(exc, UnicodeError):  # msgspec before 0.23
        return "not valid UTF-8"
    if isinstance(exc, msgspec.DecodeError):
        return "not valid UTF-8" if "UTF-8" in str(exc) else "not valid JSON"
    return f"not readable ({type(exc).__name__})"


def describe_unwritable(exc: Exception, value: object) -> str:
    """Say why a value has no JSON form."""
    if isinstance(exc, RecursionError):
        return TOO_DEEP
    if isinstance(exc, RefusedError):
        return str(exc)
    if isinstance(exc, UnicodeError):
        return "text with a lone surrogate has no UTF-8 form"
    return f"{type(value).__qualname__} cannot be written as JSON ({type(exc).__name__})"


def type_name(hint: Any) -> str:
    """Write an annotation the way a person would, without modules."""
    if hasattr(hint, "__metadata__"):  # Annotated
        return type_name(hint.__origin__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, typing.get_args(hint)))
    if hint in (None, types.NoneType):
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return re.sub(r"[\w.<>]+\.(?=\w)", "", str(hint))
