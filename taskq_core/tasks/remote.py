"""Tasks whose code is in another program: a Go service or another Python project."""

from collections.abc import Mapping
from typing import Any

import msgspec

from taskq_core.errors import TaskArgumentsError
from taskq_core.handles.handle import TaskHandle
from taskq_core.tasks.base import BaseTask, Enqueuer
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import check_call_options


class RemoteTask(BaseTask[Any]):
    """A task whose code is in another program: a Go service or another Python project.

    The payload is the JSON object of the keyword arguments, or the bytes given as the only positional argument.
    """

    result_type = Any
    is_remote = True

    def __init__(self, name: str, options: Mapping[str, Any], enqueuer: Enqueuer) -> None:
        super().__init__(name, options, enqueuer)
        self.changed = frozenset(options)
        self._check_options(options)
        check_call_options(options)

    def __repr__(self) -> str:
        return f"<remote task {self.name!r}>"

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Return the payload of a call."""
        if args:
            if len(args) > 1 or kwargs or not isinstance(args[0], bytes):
                raise TaskArgumentsError(
                    self.name, "", "a remote task takes keyword arguments, or the payload bytes as its only argument"
                )
            return args[0]
        try:
            return msgspec.json.encode(kwargs)
        except (TypeError, ValueError, RecursionError, OverflowError):
            raise TaskArgumentsError(self.name, "", "the arguments cannot be written as JSON") from None

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        """Return the arguments of a call by name. Raises the errors of `BaseTask.bind`."""
        if args:
            raise TaskArgumentsError(self.name, "", "the payload is bytes, so arguments by name are not available")
        return kwargs

    def split(self, arguments: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
        """Convert arguments by name to positional and keyword arguments of a call."""
        return [], dict(arguments)

    def s(self, *args: bytes, **kwargs: object) -> Signature[Any]:
        """Bind arguments for a later call.

        As a step of a workflow, a call without arguments gets the previous result as its payload. A call with arguments
        gets the previous result in the parameter that `step(into=...)` names.
        """
        return Signature(self, args, kwargs)

    def si(self, *args: bytes, **kwargs: object) -> Signature[Any]:
        """Bind all arguments for a later call. As a step of a workflow, the call does not get the previous result."""
        return Signature(self, args, kwargs, is_immutable=True)

    def delay(self, *args: bytes, **kwargs: object) -> TaskHandle[Any]:
        """Enqueue a call and return its handle. Raises the errors of `Task.delay`."""
        return self._enqueuer.client.enqueue(Signature(self, args, kwargs))

    async def adelay(self, *args: bytes, **kwargs: object) -> TaskHandle[Any]:
        """Enqueue a call from a coroutine and return its handle."""
        return await self._enqueuer.async_client.enqueue(Signature(self, args, kwargs))
