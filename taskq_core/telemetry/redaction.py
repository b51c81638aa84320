"""Redact exceptions in logs and spans, as the setting `LOG` says.

Type, message and traceback of an exception are needed to fix a task, so all of them are shown by default. Messages may
contain data, such as arguments of the task. A `Redaction` removes messages, or replaces each with the result of a
user's function.
"""

from collections.abc import Callable
from typing import Any

from taskq_core.service.user_code import namesake, text_of

_DEEPEST = 10
"""Maximum depth of causes and nested exception groups that are redacted."""
_FAILED = "(no message: the function in LOG['EXCEPTION_MESSAGES'] failed)"


class Redaction:
    """Redacts the messages of exceptions.

    Args:
        messages: True shows messages, False removes them, a function returns a replacement for each.
    """

    def __init__(self, messages: bool | Callable[[str], str] = True) -> None:
        self._messages = messages

    def shown(self, error: BaseException) -> BaseException:
        """Return the exception, or a copy with the same class name, traceback and causes, and redacted messages."""
        return error if self._messages is True else self._stand_in(error, _DEEPEST, {})

    def _stand_in(self, error: BaseException, deepest: int, made: dict[int, BaseException]) -> BaseException:
        known = made.get(id(error))  # `__cause__` and `__context__` are often the same exception
        if known is not None:
            return known
        kind: Any = type(error)  # typed as Any, because mypy considers exception classes unhashable
        stand_in: BaseException
        if isinstance(error, BaseExceptionGroup) and deepest:
            members: list[Any] = [self._stand_in(each, deepest - 1, made) for each in error.exceptions[:_DEEPEST]]
            stand_in = namesake(kind, ExceptionGroup)(self._message(error.message), members)
        else:
            message = self._message(text_of(error))
            stand_in = namesake(kind, Exception)(*[message] if message else [])
        made[id(error)] = stand_in
        stand_in.__traceback__ = error.__traceback__
        if deepest:
            if error.__context__ is not None:
                stand_in.__context__ = self._stand_in(error.__context__, deepest - 1, made)
            if error.__cause__ is not None:
                stand_in.__cause__ = self._stand_in(error.__cause__, deepest - 1, made)
        stand_in.__suppress_context__ = error.__suppress_context__
        return stand_in

    def _message(self, text: str) -> str:
        if not callable(self._messages):
            return ""
        try:
            message = self._messages(text)
            return message if isinstance(message, str) else _FAILED
        except Exception:  # an error of the user's function must not prevent the settlement of the task
            return _FAILED
