"""Convert the arguments of a task of Django's framework to a payload and back.

The framework allows only JSON values, ignores annotations, and accepts functions with `*args` and `**kwargs`. As for
every task of taskq, the payload is a JSON object of the arguments by name, so that schedules, the command line and Go
can enqueue the task. `*args` is a list, and `**kwargs` an object, under the parameter's name.
"""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from taskq_core import PayloadError, TaskArgumentsError
from taskq_core.codec import ArgumentsCodec, Parameter
from taskq_django.tasks_backend.framework import normalize_json

REFUSAL = "\0refusal"
"""Key of the error that replaces unreadable arguments. No parameter can have this name."""
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameter(parameter: inspect.Parameter) -> Parameter:
    """Describe a parameter. It accepts any JSON value."""
    variadic: dict[Any, Any] = {parameter.VAR_POSITIONAL: list[Any], parameter.VAR_KEYWORD: dict[str, Any]}
    return Parameter(
        name=parameter.name,
        annotation=variadic.get(parameter.kind, Any),
        required=parameter.default is parameter.empty and parameter.kind not in _VARIADIC,
        kind=parameter.kind,
        decode=json.loads,
        holds_references=False,
    )


class JsonArgumentsCodec(ArgumentsCodec):
    """Encodes and decodes the arguments of one function.

    Args:
        function: The function.
        name: Name of the task, for errors.
        injected: Parameters that the worker passes itself.
        strict: Refuse payloads with unknown fields instead of counting them.
    """

    takes_only_json = True

    def __init__(self, function: Any, *, name: str, injected: frozenset[str], strict: bool = False) -> None:
        parameters = [each for each in inspect.signature(function).parameters.values() if each.name not in injected]
        self.name, self.strict = name, strict
        self._set_parameters({each.name: _parameter(each) for each in parameters})
        self._signature = inspect.Signature(parameters)
        self._needed = tuple(
            each.name for each in parameters if each.default is each.empty and each.kind not in _VARIADIC
        )

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Return the arguments by name. Raises as `ArgumentsCodec.bind`."""
        try:
            return dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise TaskArgumentsError(self.name, "", str(error)) from None

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Return the payload of a call.

        Raises:
            TypeError: An argument has no JSON type.
            TaskArgumentsError: The arguments do not fit the function, or a value such as NaN has no JSON form.
        """
        plain = normalize_json(self.bind(args, kwargs))
        problem = ""
        try:
            return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            problem = "text with a lone surrogate has no UTF-8 form"
        except RecursionError:
            problem = "is nested too deeply or contains itself"
        except ValueError:
            problem = "NaN and infinity have no JSON form"
        # Raised outside of the `except` blocks, because the errors there would show the arguments as context.
        raise TaskArgumentsError(self.name, "", problem)

    def decode(self, payload: bytes) -> dict[str, object]:
        """Return the arguments by name.

        Raises:
            PayloadError: The payload is not a JSON object, lacks an argument, or has one of the wrong form.
        """
        return self._decode(payload)[0]

    def decode_counting(self, payload: bytes) -> tuple[dict[str, object], int]:
        """Return the arguments by name, and the number of ignored unknown fields. For workers.

        If the payload does not fit, return the error under the key `REFUSAL`. The run raises it, so that the
        framework's signals report it.
        """
        try:
            return self._decode(payload)
        except PayloadError as error:
            return {REFUSAL: error}, 0

    def _decode(self, payload: bytes) -> tuple[dict[str, object], int]:
        arguments, problem = self._read(payload)
        if problem:
            raise PayloadError(self.name, "", problem)
        for name in self._needed:
            if name not in arguments:
                raise PayloadError(self.name, name, "missing")
        if not isinstance(arguments.get(self.rest or "", []), list):
            raise PayloadError(self.name, self.rest or "", "expected a list")
        if not isinstance(arguments.get(self.named_rest or "", {}), dict):
            raise PayloadError(self.name, self.named_rest or "", "expected an object")
        unknown = [name for name in arguments if name not in self.parameters]
        if unknown and self.strict:
            raise PayloadError(self.name, "", f"unknown field {unknown[0][:80]!r}")
        return {name: arguments[name] for name in self.parameters if name in arguments}, len(unknown)

    def _read(self, payload: bytes) -> tuple[dict[str, Any], str]:
        try:
            found = json.loads(payload or b"{}")
        except RecursionError:
            return {}, "nested too deeply"
        except ValueError:  # includes UnicodeDecodeError
            return {}, "not valid JSON"
        return (found, "") if isinstance(found, dict) else ({}, "expected a JSON object")
