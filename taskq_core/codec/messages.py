"""Error texts for arguments and results that are not valid. They name types and positions, but never values.

Error texts of msgspec, of Pydantic models and of a user's own checks may quote the input. Only texts that are known not
to quote the input are used. All other texts are replaced.
"""

import re
import types
import typing
from typing import Any

import msgspec

TOO_DEEP = "is nested too deeply or contains itself"

# Error texts of msgspec that do not quote the input. Other texts may contain a value, and are replaced.
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
    """The codec rejected a value. Unlike texts of other libraries, the error text never contains the value."""


def split_path(text: str) -> tuple[str, str | None]:
    """Split an error text of msgspec into the problem and its position inside the value, None for the whole value."""
    found = _PATH.search(text)
    if found is None:
        return text, None
    return text[: found.start()], found[2] + ("[key]" if found[1] else "")


def describe(exc: msgspec.ValidationError, hint: Any, at: str, got: type | None = None) -> str:
    """Return the error text for a value that does not match the annotation `hint`, without the value."""
    head = split_path(str(exc))[0]
    cause = exc.__cause__
    if isinstance(cause, RefusedError):
        problem = str(cause)
    elif cause is not None:
        problem = f"rejected by the validation of its class ({type(cause).__name__})"
    elif not at and (whole := _WHOLE_TYPE.fullmatch(head)):
        problem = f"expected {type_name(hint)}, got {got.__qualname__ if got else whole[1]}"
    elif _SAFE.fullmatch(head):
        problem = head[0].lower() + head[1:].replace("`", "")
    else:
        problem = f"not an allowed value of {type_name(hint)}"
    return problem + place(at)


def place(at: str) -> str:
    """Return " at <position>" for a position inside a value, "" for the whole value. Long positions are cut."""
    if len(at) > _LONGEST_PLACE:
        at = f"{at[:_LONGEST_PLACE]}..."
    return f" at {at}" if at else ""


def describe_unreadable(exc: Exception) -> str:
    """Return why bytes could not be decoded as JSON."""
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    if isinstance(exc, UnicodeError):  # msgspec before 0.23 raises UnicodeError for invalid UTF-8
        return "not valid UTF-8"
    if isinstance(exc, msgspec.DecodeError):
        return "not valid UTF-8" if "UTF-8" in str(exc) else "not valid JSON"
    return f"not readable ({type(exc).__name__})"


def describe_unwritable(exc: Exception, value: object) -> str:
    """Return why a value cannot be written as JSON."""
    if isinstance(exc, RecursionError):
        return TOO_DEEP
    if isinstance(exc, RefusedError):
        return str(exc)
    if isinstance(exc, UnicodeError):
        return "text with a lone surrogate has no UTF-8 form"
    return f"{type(value).__qualname__} cannot be written as JSON ({type(exc).__name__})"


def type_name(hint: Any) -> str:
    """Return an annotation as source code without module names, such as `list[Order] | None`."""
    if hasattr(hint, "__metadata__"):  # `Annotated[type, ...]`: omit the metadata
        return type_name(hint.__origin__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, typing.get_args(hint)))
    if hint in (None, types.NoneType):
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return re.sub(r"[\w.<>]+\.(?=\w)", "", str(hint))
