"""Failures of steps: how code gets them, when they are stored, and in which branch of the code they occurred.

A run of a task may have several branches: its function, and each asyncio task that the function starts. A branch that
begins another step or wait after a failure has caught this failure, and so has each branch that started the failed one.
"""

import asyncio
import itertools
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from types import CodeType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import msgspec

from taskq_core.errors import ConfigurationError, StepError, StepFailedError
from taskq_core.execution.retry import RetryDelay, as_policy, delay_after
from taskq_core.service.user_code import class_name, describe
from taskq_core.settings import Duration, check_whole, exception_classes, seconds, unknown
from taskq_core.wire import clean_text

if TYPE_CHECKING:
    from taskq_core.execution.context import TaskContext

T = TypeVar("T")

FAILED = b"!"
"""Prefix of a stored failure. A stored result is JSON, which never begins with this prefix."""
TEXT_CHARS = 1_000
"""Maximum length of the text of a stored failure."""
ARGS_BYTES = 4_000
"""Maximum bytes of the arguments of a stored exception as JSON."""
_DEPTH_MAX = 50
"""Maximum number of branches that are told apart below each other, so that asyncio tasks that start one another without
end keep no memory."""

StepErrors = tuple[type[Exception], ...]
_numbers = itertools.count()


# --- branches ---------------------------------------------------------------------------------------------------------


class Branch(msgspec.Struct, eq=False):
    """An asyncio task that the code of a run has started. None stands for the function of the run itself.

    Attributes:
        parent: The branch that started it.
        number: Larger than the numbers of all earlier branches and failures.
        depth: Number of branches above it.
    """

    parent: "Branch | None"
    number: int
    depth: int


branch: ContextVar[Branch | None] = ContextVar("taskq_branch", default=None)
"""The branch that runs this code."""


class _BranchFactory:
    """A task factory of asyncio that gives each asyncio task a branch."""

    def __init__(self, create: Callable[..., Any]) -> None:
        self._create = create

    def __call__(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], *, context: Any = None, **more: Any
    ) -> Any:
        context = copy_context() if context is None else context
        parent = branch.get()
        depth = 0 if parent is None else parent.depth + 1
        if depth < _DEPTH_MAX:
            context.run(branch.set, Branch(parent, next(_numbers), depth))
        return self._create(loop, work, context=context, **more)


async def in_branch(of: Branch | None, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on behalf of code in a branch."""
    branch.set(of)
    return await work


def track_branches(loop: asyncio.AbstractEventLoop) -> None:
    """Give each asyncio task that is started on an event loop from now on a branch.

    If the loop has a task factory of the application, asyncio tasks belong to the branch of the code that starts them.
    """
    factory = loop.get_task_factory()
    if factory is None:
        loop.set_task_factory(_BranchFactory(lambda loop, work, **more: asyncio.Task(work, loop=loop, **more)))
    elif sys.version_info >= (3, 12) and factory is asyncio.eager_task_factory:
        loop.set_task_factory(_BranchFactory(asyncio.eager_task_factory))


def _lineage(of: Branch | None) -> Iterator[Branch | None]:
    while of is not None:
        yield of
        of = of.parent
    yield None


# --- failures ---------------------------------------------------------------------------------------------------------


class StoredFailure(msgspec.Struct, omit_defaults=True):
    """The failure of a step as stored.

    Attributes:
        type: Name of the exception's class.
        text: Text of the exception.
        args: Arguments of the exception, if code may catch its class.
    """

    type: str
    text: str
    args: list[Any] | None = None


class StepFailure(msgspec.Struct, eq=False):
    """A failure of a step or of sub-tasks that the code of this run got.

    Attributes:
        name: Name of the step, with its number.
        raised: The exception that the code gets.
        original: The exception that the step raised in this run, None if the failure was stored by an earlier run.
        count: Number of failures of this step so far, 0 if this one does not count.
        is_final: Whether no retry can change it: it is stored, or the policy of the step is exhausted.
        branch: The branch that got it.
        started_ms: Start of the step, Unix ms.
        data: The failure in its stored form, b"" if it is stored.
        number: Larger than the numbers of all earlier branches.
    """

    name: str
    raised: Exception
    original: Exception | None = None
    count: int = 0
    is_final: bool = False
    branch: Branch | None = None
    started_ms: int = 0
    data: bytes = b""
    number: int = msgspec.field(default_factory=lambda: next(_numbers))

    def is_caught_by(self, other: Branch | None) -> bool:
        """Return whether a branch that begins a step now, or a branch that started it, has caught this failure.

        This is not the case for a branch that was started before the failure beside the failed one.
        """
        caught_by, below = set(map(id, _lineage(self.branch))), None
        for each in _lineage(other):
            if id(each) in caught_by:
                break
            below = each
        return below is None or below.number > self.number


def encode_failure(error: Exception, declared: StepErrors) -> bytes:
    """Return the stored form of a step's exception. Never raises."""
    text = clean_text(describe(error).removeprefix(f"{class_name(type(error))}: "), TEXT_CHARS)
    failure = StoredFailure(class_name(type(error)), text)
    if type(error) in (*declared, StepError):
        with suppress(Exception):  # arguments without a JSON form, or that the class does not take
            args = msgspec.json.encode(error.args)
            if len(args) <= ARGS_BYTES and type(type(error)(*msgspec.json.decode(args))) is type(error):
                failure.args = msgspec.json.decode(args)
    return FAILED + msgspec.json.encode(failure)


def decode_failure(name: str, data: bytes, declared: StepErrors) -> Exception:
    """Return the exception that code gets for a stored failure of a step.

    It is an exception of a class that the task declares, made from its stored arguments, otherwise `StepFailedError`.
    """
    failure = msgspec.json.decode(data[len(FAILED) :], type=StoredFailure)
    for kind in (*declared, StepError):
        if kind.__name__ == failure.type and failure.args is not None:
            with suppress(Exception):  # the class has changed since the failure was stored
                error: Exception = kind(*failure.args)
                return error
    return StepFailedError(name, failure.type, failure.text)


def missed_handler(failure: StepFailure) -> CodeType | None:
    """Return the code that names a class of a step's original exception, but did not get an exception of this class.

    Such code probably expects to catch the original exception.
    """
    missed = {kind.__name__ for kind in type(failure.original).__mro__ if not isinstance(failure.raised, kind)}
    trace = failure.raised.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if missed.intersection(frame.f_code.co_names) and not frame.f_globals.get("__name__", "").startswith("taskq_"):
            return frame.f_code
        trace = trace.tb_next
    return None


# --- policies ---------------------------------------------------------------------------------------------------------


class StepPolicyDict(TypedDict, total=False):
    """Keyword options of `context.using(...)`."""

    max_retry: int
    retry_delay: RetryDelay
    timeout: Duration | None
    no_retry_on: type[BaseException] | tuple[type[BaseException], ...]


class StepPolicy:
    """Retries and timeout of the steps of a task that are called with `context.using(...)`.

    Raises:
        ConfigurationError: An option is not valid.
    """

    def __init__(self, context: "TaskContext", **options: Unpack[StepPolicyDict]) -> None:
        if unknown_names := options.keys() - StepPolicyDict.__annotations__.keys():
            raise ConfigurationError(
                str(unknown("option of a step", min(unknown_names), StepPolicyDict.__annotations__))
            )
        self._context = context
        self._max_retry = check_whole("max_retry", options.get("max_retry", 0), least=0, most=2**31 - 1)
        self._delay = as_policy(options.get("retry_delay"))
        self._no_retry_on = exception_classes("no_retry_on", options.get("no_retry_on", ()))
        timeout = options.get("timeout")
        self.timeout_s = None if timeout is None else seconds("timeout", timeout, allow_zero=False)

    def delay_s(self, error: Exception, count: int) -> float | None:
        """Return the seconds until the next attempt of a step that has failed `count` times. None: there is none."""
        if count > self._max_retry or isinstance(error, self._no_retry_on):
            return None
        return delay_after(self._delay, count - 1, error, self._context)
