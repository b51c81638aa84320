"""Steps of a task: results that survive a crash, waits that free the worker's slot, and output of a running task.

::

    report = await context.astep("moderate", moderate, photo_id)      the result is stored; a later run returns it
    paid = await context.areceive("paid", Payment, timeout=DAY)       ends this run; the next one gets the value
    answer = await context.areceive("review", bool, ask={"photo": 7})  the same, for a question to people
    name, value = await context.areceive_any({"paid": Payment, "cancelled": str})  the first of several signals

A wait raises `TaskWaiting`, which ends the run. The next run executes the task's function again from its beginning, and
each step that has a result returns it at once. So the code between the steps must lead to the same steps again.

Everything is stored in one record per task, described in `broker/lua/_steps.lua`. Only the run that owns the task can
write to it.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, overload

import msgspec

from taskq_core.broker.operations.steps import StoredAnswer
from taskq_core.clock import utc_datetime
from taskq_core.codec import (
    EMITTED_BYTES,
    decode_result,
    decode_signal,
    decode_value,
    encode_question,
    encode_result,
    encode_value,
    result_type,
)
from taskq_core.errors import SignalTimeoutError, StepError, WorkflowFailedError
from taskq_core.execution.answers import Answer, answer_type
from taskq_core.execution.step_failures import StepPolicy
from taskq_core.execution.step_record import PARTIAL, PartialResults, Steps, current_step
from taskq_core.settings import Duration

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

Ask = Mapping[str, object] | None
"""What a task asks, None if it receives a signal."""
_NO_DEFAULT: Any = object()


class StepCalls:
    """The methods `step` and `astep` of `TaskContext`, and of what `TaskContext.using` returns."""

    __slots__ = ()

    def _open_steps(self) -> Steps | None:
        """Return the steps of this run, None if the function was called directly. Implemented by `TaskContext`."""
        raise NotImplementedError

    @property
    def _policy(self) -> StepPolicy | None:
        return None

    def step(self, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function and store its result. A later run of the task returns the stored result instead.

        A name that is used again in the same run gets a number, in the order of the calls. If the function was called
        directly, without a worker, nothing is stored.

        If the function raises, the step has failed. If this failure ends the run, the next attempt of the task repeats
        the step. If the code catches the failure and begins another step or a wait, the failure is stored, and each
        later run raises it again.

        Args:
            name: Name of the step, 1 to 100 characters.
            function: Function whose return value has a JSON form. The value is decoded by the return annotation, in
                the first run too.
            *args: Arguments of the function.
            **kwargs: Keyword arguments of the function.

        Raises:
            StepFailedError: The function raised an exception whose class is not in the task's option `step_errors`.
            StepError: The result does not fit the annotation, or the name is not valid.
        """
        _check_function(name, function)
        steps, policy = self._open_steps(), self._policy
        if policy is not None and policy.timeout_s is not None:
            raise StepError("the timeout of a step needs `astep` and a coroutine function", is_final=True)
        if steps is None:
            return function(*args, **kwargs)
        if inspect.iscoroutinefunction(function):
            problem = f"step {name!r:.120} got a coroutine function; use `await context.astep(...)`"
            raise StepError(problem, is_final=True)
        name, data, started_ms = steps.wait_for(steps.begin(name))
        while data is None:
            value = error = None
            try:
                with steps.span(name), _inside(name):
                    value = encode_value(f"the result of step {name!r}", function(*args, **kwargs))
            except Exception as raised:
                error = raised
            finally:
                data = steps.wait_for(steps.end(name, value, started_ms, error, policy))
        result: R = _result(steps, name, data, function)
        return result

    @overload
    async def astep(
        self, name: str, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def astep(self, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def astep(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or a coroutine function, and store its result, as `step` does.

        Steps may run concurrently, for example in `asyncio.gather`. If one of them fails, or the task waits, the run
        ends after the other steps have ended, because their results are stored.
        """
        _check_function(name, function)
        steps, policy = self._open_steps(), self._policy
        timeout_s = None if policy is None else policy.timeout_s
        if steps is None:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result
        name, data, started_ms = await steps.run(steps.begin(name))
        while data is None:
            value = error = None
            try:
                with steps.span(name), _inside(name):
                    result = function(*args, **kwargs)
                    if inspect.isawaitable(result):
                        async with asyncio.timeout(timeout_s):
                            result = await result
                    elif timeout_s is not None:
                        raise StepError("the timeout of a step needs a coroutine function", is_final=True)
                value = encode_value(f"the result of step {name!r}", result)
            except Exception as raised:
                error = raised
            finally:
                data = await steps.run(steps.end(name, value, started_ms, error, policy))
        return _result(steps, name, data, function)


class StepContext(StepCalls):
    """The methods of `TaskContext` for steps. Each exists for plain functions and, with an `a`, for coroutines."""

    __slots__ = ()

    name: str  # of the task

    def _durable(self, what: str) -> Steps:
        steps = self._open_steps()
        if steps is None:
            raise StepError(f"{what} needs a worker, or the eager or inline mode in tests")
        return steps

    # --- waits --------------------------------------------------------------------------------------------------------

    def sleep(self, duration: Duration | datetime, *, name: str = "sleep") -> None:
        """End this run, and continue the task in another run after a time. Uses no attempt.

        The worker's slot is free during the wait. If the function was called directly, this method returns at once.

        Args:
            duration: Seconds, a `timedelta`, or a `datetime` with time zone. Later runs keep the end that the first run
                has set. A negative duration or a time in the past ends the sleep at once.
            name: Name of this sleep. It distinguishes the sleeps of the task.

        Raises:
            TaskWaiting: The time is not over. Do not catch this exception.
        """
        steps = self._open_steps()
        if steps is not None:
            steps.wait_for(steps.sleep(name, duration))

    async def asleep(self, duration: Duration | datetime, *, name: str = "sleep") -> None:
        """Continue the task after a time. Like `sleep`, for coroutines."""
        steps = self._open_steps()
        if steps is not None:
            await steps.run(steps.sleep(name, duration))

    @overload
    def receive(self, name: str, type_: type[R], /, *, timeout: Duration | None = None, ask: Ask = None) -> R: ...
    @overload
    def receive(
        self, name: str, type_: type[R], /, *, timeout: Duration | None, default: D, ask: Ask = None
    ) -> R | D: ...
    @overload
    def receive(
        self, name: str, type_: Any = Any, /, *, timeout: Duration | None = None, default: Any = ..., ask: Ask = None
    ) -> Any: ...
    def receive(
        self,
        name: str,
        type_: Any = Any,
        /,
        *,
        timeout: Duration | None = None,
        default: Any = _NO_DEFAULT,
        ask: Ask = None,
    ) -> Any:
        """Return the next value that was sent to this task with `handle.signal(name, value)`, or ask a question.

        Without a value yet, this run ends, and another one continues when the value arrives. The worker's slot is free
        during the wait. Values of one name arrive in the order in which they were sent, including those sent before
        this call.

        With `ask`, the task asks people a question, and only an answer to this question ends the wait:
        `handle.answer(number, value)`, a link of `approval_url`, or a form of the admin, the dashboards or the API.
        They show what is asked, to users who may see payloads. Signals do not end the wait, and an answer never reaches
        another question.

        Args:
            name: Name of the signal or of the question, 1 to 100 characters.
            type_: Type of the value. `Answer[T]` also returns who answered a question, and when.
            timeout: Maximum time to wait, from the first call on. None: no limit.
            default: Returned after the timeout.
            ask: What is asked, such as `{"order": 17, "amount": "9.99"}`: values with a JSON form, at most 64 KiB. None
                receives a signal.

        Raises:
            TaskWaiting: No value has arrived. Do not catch this exception.
            SignalTimeoutError: The timeout is over, and `default` is not given.
            StepError: The value does not fit the type, `ask` has no JSON form or is too large, or the task declares its
                signals without this one.
        """
        steps = self._durable("receive")
        if ask is not None:
            wanted, question = self._question(type_, ask)
            return _answered(steps, name, steps.wait_for(steps.ask(name, question, timeout)), type_, wanted, default)
        _check_signal_type(type_)
        return _received(steps, name, steps.wait_for(steps.receive(name, timeout)), type_, default)

    @overload
    async def areceive(
        self, name: str, type_: type[R], /, *, timeout: Duration | None = None, ask: Ask = None
    ) -> R: ...
    @overload
    async def areceive(
        self, name: str, type_: type[R], /, *, timeout: Duration | None, default: D, ask: Ask = None
    ) -> R | D: ...
    @overload
    async def areceive(
        self, name: str, type_: Any = Any, /, *, timeout: Duration | None = None, default: Any = ..., ask: Ask = None
    ) -> Any: ...
    async def areceive(
        self,
        name: str,
        type_: Any = Any,
        /,
        *,
        timeout: Duration | None = None,
        default: Any = _NO_DEFAULT,
        ask: Ask = None,
    ) -> Any:
        """Return the next value that was sent to this task, or ask a question. Like `receive`, for coroutines."""
        steps = self._durable("areceive")
        if ask is not None:
            wanted, question = self._question(type_, ask)
            return _answered(steps, name, await steps.run(steps.ask(name, question, timeout)), type_, wanted, default)
        _check_signal_type(type_)
        return _received(steps, name, await steps.run(steps.receive(name, timeout)), type_, default)

    def receive_any(self, signals: Mapping[str, Any], /, *, timeout: Duration | None = None) -> tuple[str, Any]:
        """Return the name and the value of the signal that arrives first. The values of the other signals stay.

        Without a value yet, this run ends, and another one continues when a value arrives, as in `receive`. Among
        values that have arrived before, the oldest one counts. Later runs get the same signal.

        Args:
            signals: Names of the signals, without `|`, and the types of their values, such as
                `{"paid": Payment, "cancelled": str}`.
            timeout: Maximum time to wait, from the first call on. None: no limit.

        Raises:
            TaskWaiting: No value has arrived. Do not catch this exception.
            SignalTimeoutError: The timeout is over. Later values stay for the next `receive` of their names.
            StepError: The value does not fit the type, `signals` is empty or not a mapping, a name is not valid, or the
                task declares its signals without one of these.
        """
        steps, names = self._durable("receive_any"), _several(signals)
        return _received_any(steps, signals, steps.wait_for(steps.receive_any(names, timeout)))

    async def areceive_any(self, signals: Mapping[str, Any], /, *, timeout: Duration | None = None) -> tuple[str, Any]:
        """Return the name and the value of the signal that arrives first. Like `receive_any`, for coroutines."""
        steps, names = self._durable("areceive_any"), _several(signals)
        return _received_any(steps, signals, await steps.run(steps.receive_any(names, timeout)))

    def _question(self, type_: Any, asked: Mapping[str, object]) -> tuple[Any, bytes]:
        """Return the type of the value that answers a question, and the question as it is stored."""
        wanted = answer_type(type_)[0]
        return wanted, encode_question(self.name, asked, wanted)

    def call(self, *calls: Any, name: str = "call", return_exceptions: bool = False) -> list[Any]:
        """Enqueue other tasks, and return their results in the order of the calls, once all tasks have ended.

        The current run of this task ends, and another run continues after the last of the other tasks has ended. During
        the wait, the worker's slot is free. The tasks are enqueued once, even if the worker crashes. The enqueued tasks
        are the members of a workflow, so they may run in other queues and in Go.

        Args:
            *calls: Signatures of tasks, `task.s(...)`, and chains and groups of them; or one iterable of these.
            name: Name of these calls. It distinguishes the uses of `call` in the task.
            return_exceptions: Return the results of the tasks that succeeded and, in the place of each other, a
                `WorkflowFailedError` with its error. Results that an earlier run has stored do not change.

        Raises:
            TaskWaiting: The tasks have not ended. Do not catch this exception.
            WorkflowFailedError: A task has failed, after all others have ended. The message contains its error.
            StepError: A call has an option that has no effect here, such as `on_failure` of a group.
        """
        steps, listed = self._durable("call"), _listed(calls)
        if not listed:
            return []
        called = steps.wait_for(steps.call(name, listed, each=return_exceptions))
        return _results(called, listed, return_exceptions=return_exceptions)

    async def acall(self, *calls: Any, name: str = "call", return_exceptions: bool = False) -> list[Any]:
        """Enqueue other tasks, and return their results. Like `call`, for coroutines."""
        steps, listed = self._durable("acall"), _listed(calls)
        if not listed:
            return []
        called = await steps.run(steps.call(name, listed, each=return_exceptions))
        return _results(called, listed, return_exceptions=return_exceptions)

    # --- output while the task runs -----------------------------------------------------------------------------------

    def emit(self, value: object) -> None:
        """Append a value to the output of the task, which `handle.stream()` reads while the task runs.

        Values are sent in batches, at most 50 ms later. The option `max_emitted` says about how many values are kept.
        The output is deleted with the task. If the function was called directly, nothing happens.

        Args:
            value: A value with a JSON form.

        Raises:
            StepError: The value has no JSON form, or is too large.
        """
        data, steps = encode_value("an emitted value", value, EMITTED_BYTES), self._open_steps()
        if steps is not None:
            steps.wait_for(steps.emit(data))

    async def aemit(self, value: object) -> None:
        """Append a value to the output of the task. Like `emit`, for coroutines."""
        data, steps = encode_value("an emitted value", value, EMITTED_BYTES), self._open_steps()
        if steps is not None:
            await steps.run(steps.emit(data))


class StepsWithPolicy(StepCalls):
    """Calls steps with a policy. Returned by `TaskContext.using`."""

    __slots__ = ("_context", "_own_policy")

    def __init__(self, context: StepContext, policy: StepPolicy) -> None:
        self._context, self._own_policy = context, policy

    def _open_steps(self) -> Steps | None:
        return self._context._open_steps()

    @property
    def _policy(self) -> StepPolicy:
        return self._own_policy


def next_receive(context: StepContext, name: str) -> tuple[int, int, str]:
    """Return the numbers of the next `receive` of a name, without and with `ask`, and a generation of the task.

    The link of `approval_url` contains them. The numbers count from 1.
    """
    return context._durable("approval_url").next_receive(name)


async def has_result(context: StepContext, name: str) -> bool:
    """Return whether the record of the task has a result of a step. False if the function was called directly."""
    steps = context._open_steps()
    return steps is not None and await steps.run(steps.has_result(name))


def _check_function(name: str, function: object) -> None:
    if callable(function):
        return
    if inspect.iscoroutine(function):
        function.close()  # otherwise Python warns that nothing awaited it
    got, cure = type(function).__name__, "pass the function and its arguments, such as astep('mail', send, address)"
    raise StepError(f"step {name!r:.120} got a {got} instead of a function; {cure}", is_final=True)


@contextmanager
def _inside(name: str) -> Iterator[None]:
    token = current_step.set(name)
    try:
        yield
    finally:
        current_step.reset(token)


def _result(steps: Steps, name: str, data: bytes, function: Callable[..., Any]) -> Any:
    way_out = f"to repeat the step, run `{steps.forget_command(name)}`"
    return decode_value(f"the stored result of step {name!r}", data, result_type(function), way_out=way_out)


def _received(steps: Steps, name: str, received: tuple[str, bytes | None], type_: Any, default: Any) -> Any:
    numbered, data = received
    if data is None:
        if default is _NO_DEFAULT:
            raise SignalTimeoutError(name)
        return default
    way_out = f"to delete it, run `{steps.forget_command(numbered)}`, and send another one"
    return decode_signal(name, data, type_, way_out=way_out)


def _several(signals: object) -> list[str]:
    """Return the names of the signals of `receive_any`."""
    if not isinstance(signals, Mapping) or not signals:
        problem = "receive_any takes names of signals with the types of their values, such as {'paid': Payment}"
        raise StepError(f"{problem}; got {signals!r:.120}", is_final=True)
    for type_ in signals.values():
        _check_signal_type(type_)
    return list(signals)


def _received_any(steps: Steps, signals: Mapping[str, Any], received: tuple[str, bytes]) -> tuple[str, Any]:
    numbered, data = received
    if not numbered:
        raise SignalTimeoutError(" | ".join(signals))
    name = numbered.rpartition("#")[0]
    return name, _received(steps, name, (numbered, data), signals[name], _NO_DEFAULT)


def _check_signal_type(type_: Any) -> None:
    if answer_type(type_)[1]:
        raise StepError("the type Answer needs `ask`: a signal does not tell who sent it", is_final=True)


def _answered(
    steps: Steps, name: str, received: tuple[str, StoredAnswer | None, int], type_: Any, wanted: Any, default: Any
) -> Any:
    numbered, stored, at_ms = received
    value = _received(steps, name, (numbered, None if stored is None else bytes(stored.value)), wanted, default)
    if stored is None or not answer_type(type_)[1]:
        return value
    return Answer(value, stored.by, utc_datetime(at_ms / 1000))


def _listed(calls: Sequence[Any]) -> list[Any]:
    """Return the calls, which may be given as one iterable. Refuse options that have no effect in a call."""
    if len(calls) == 1 and isinstance(calls[0], Iterable):
        calls = tuple(calls[0])
    for each in calls:
        if getattr(each, "on_failure", "stop") != "stop" and not hasattr(each, "parts"):
            problem = "on_failure has no effect on a part of `call`"
            raise StepError(f"{problem}; return_exceptions=True returns the other results", is_final=True)
        details = getattr(each, "details", None)
        if details is not None and details != type(details)():
            problem = "named, at_home and kept have no effect on a part of `call`"
            raise StepError(f"{problem}, whose workflow belongs to the task; omit them", is_final=True)
    return list(calls)


def _results(called: tuple[str, bytes], calls: Sequence[Any], *, return_exceptions: bool) -> list[Any]:
    name, data = called
    partial = None
    if data.startswith(PARTIAL):
        partial = msgspec.json.decode(data[len(PARTIAL) :], type=PartialResults)
        data = bytes(partial.results)
        if not return_exceptions:
            reason = "; ".join(f"call {number}: {error}" for number, error in list(partial.errors.items())[:20])
            raise WorkflowFailedError(partial.queue, partial.workflow, reason)
    values = decode_result(data, list[Any])
    assert isinstance(values, list)
    if len(values) != len(calls):
        problem = f"call {name!r} has stored {len(values)} results, but has {len(calls)} sub-tasks now"
        raise StepError(f"{problem}; to enqueue them again, give the call another name")
    found: list[Any] = []
    for number, (value, call) in enumerate(zip(values, calls, strict=True)):
        if partial is not None and number in partial.errors:
            found.append(WorkflowFailedError(partial.queue, partial.workflow, partial.errors[number]))
            continue
        task = getattr(call, "task", None)
        type_, label = (Any, "the sub-tasks") if task is None else (task.result_type, f"task {task.name!r}")
        what, way_out = f"result {number} of call {name!r}", f"check what {label} returns"
        found.append(decode_value(what, encode_result(value), type_, way_out=way_out))
    return found
