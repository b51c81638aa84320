"""Read by type checkers, never run. A line that ends in `# error` must be refused by each of them, no other may be."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypedDict, assert_type

from taskq_core import RawTask, Signature, TaskContext, TaskQ
from taskq_core.tasks.middleware import Middleware

taskq = TaskQ()


class Mail(TypedDict):
    to: str


def plain(message: RawTask) -> int:
    assert_type(message.payload, bytes)
    assert_type(message.headers, Mapping[str, str])
    assert_type(message.decode(Mail), Mail)
    assert_type(message.decode(list[int]), list[int])
    return message.retried


async def with_context(context: TaskContext, message: RawTask) -> str:
    assert_type(context.outcome, str | None)
    return message.type


def text(message: str) -> None: ...
def tell(error: BaseException, context: TaskContext) -> None: ...
async def tell_later(error: BaseException, context: TaskContext) -> None: ...
def tell_less(error: BaseException) -> None: ...


def handlers(message: RawTask) -> None:
    assert_type(taskq.handler("email:")(plain)(message), int)
    taskq.handler("email:", retry_delay=5, no_retry_on=ValueError, is_failure=lambda error: False)(with_context)
    taskq.handler("email:", retry_delay=lambda failures, error, context: context.retried)(plain)
    taskq.not_found(plain)
    taskq.not_found(with_context)
    taskq.on_error(tell)
    taskq.on_error(tell_later)
    taskq.handler("email:")(text)  # error
    taskq.handler("email:", queue="x")  # error
    taskq.handler(plain)  # error
    taskq.handler()  # error
    taskq.not_found(text)  # error
    taskq.on_error(tell_less)  # error
    taskq.on_error(plain)  # error
    message.id = "x"  # error


class Right(Middleware):
    def enqueue(self, call: Signature[Any]) -> Signature[Any]:
        assert_type(call.arguments, Mapping[str, object])
        assert_type(call.with_arguments(a=1), Signature[Any])
        assert_type(call.with_headers({"a": "b"}), Signature[Any])
        call.with_headers({"a": 1})  # error
        return call

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        return await call()


class Wrong(Middleware):
    def enqueue(self, call: Signature[Any]) -> None: ...  # error


def use() -> None:
    taskq.use(Right())
    taskq.use(Right(), queue="a")
    taskq.use(Right(), task="a")
    taskq.use(Right(), task=taskq.remote("a"))
    taskq.use(Right)  # error
    taskq.use(Right(), task=plain)  # error
