"""Where a run failed, for the log: the stack of its exception without the words of it.

Whoever mends a task needs the stack. What an exception says may hold arguments of the task, and these stay out of logs;
it stands with the task in Redis. So the log gets exceptions of the same names, frames and causes that say nothing.
"""

from types import TracebackType
from typing import Any

from taskq_core.attempts import is_ours, users_frames
from taskq_core.user_code import namesake

_DEEPEST = 10
"""Causes of causes, and exceptions in groups of groups, that are followed."""


def without_words(error: BaseException | None) -> BaseException | None:
    """Return what logging takes as `exc_info`, or None if the stack would show none of the user's code."""
    if error is None or not any(_is_foreign(each.__traceback__) for each in _chain(error)):
        return None
    return _stand_in(error, _DEEPEST, {})


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception and what led to it."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and len(chain) < _DEEPEST:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def _is_foreign(stack: TracebackType | None) -> bool:
    while stack is not None:
        if not is_ours(stack):
            return True
        stack = stack.tb_next
    return False


def _stand_in(error: BaseException, deepest: int, made: dict[int, BaseException]) -> BaseException:
    known = made.get(id(error))  # mostly a cause, which is the context as well
    if known is not None:
        return known
    kind: Any = type(error)  # mypy takes a class of exceptions for one that has no hash
    stand_in: BaseException
    if isinstance(error, BaseExceptionGroup) and deepest:
        members: list[Any] = [_stand_in(each, deepest - 1, made) for each in error.exceptions[:_DEEPEST]]
        stand_in = namesake(kind, ExceptionGroup)("", members)
    else:
        stand_in = namesake(kind, Exception)()
    made[id(error)] = stand_in
    stand_in.__traceback__ = users_frames(error.__traceback__)
    if deepest:
        if error.__context__ is not None:
            stand_in.__context__ = _stand_in(error.__context__, deepest - 1, made)
        if error.__cause__ is not None:
            stand_in.__cause__ = _stand_in(error.__cause__, deepest - 1, made)
    stand_in.__suppress_context__ = error.__suppress_context__
    return stand_in
