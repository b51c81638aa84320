"""Encode the return value of a task. Decode a result, or the payload of any task, as the type that the caller wants."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from taskq_core.codec.messages import describe, describe_unreadable, describe_unwritable, split_path, type_name
from taskq_core.codec.oversized import OversizedResult, within_limit
from taskq_core.codec.values import build, encode_plain, holds_non_finite, to_plain
from taskq_core.errors import PayloadError, ResultValueError


def encode_result(value: object) -> bytes:
    """Encode the return value of a task as JSON.

    Raises:
        ResultValueError: The value has no JSON form. The message names types, but not the value.
    """
    payload = _encode(value)
    _check_finite(payload, value)
    return payload


def encode_result_within(value: object, limit: int) -> bytes | OversizedResult:
    """Encode the return value of a task as JSON. If the JSON has more than `limit` bytes, return only its size.

    An oversized value is encoded once and not copied.

    Raises:
        ResultValueError: See `encode_result`. An oversized value is not checked for NaN, because the check copies it.
    """
    payload = within_limit(_encode(value), limit)
    if isinstance(payload, bytes):
        _check_finite(payload, value)
    return payload


def _encode(value: object) -> bytes:
    try:
        return encode_plain(value)
    except Exception as exc:
        problem = describe_unwritable(exc, value)
    raise ResultValueError(f"result: {problem}")  # raised outside of `except`: the caught error may quote the value


def _check_finite(payload: bytes, value: object) -> None:
    """Reject NaN and infinity, which `encode_plain` writes as null."""
    if b"null" not in payload:
        return
    problem = ""
    try:
        if holds_non_finite(to_plain(value)):
            problem = "NaN and infinity have no JSON form"
    except Exception as exc:
        problem = describe_unwritable(exc, value)
    if problem:
        raise ResultValueError(f"result: {problem}")


def decode_result(data: bytes, type_: Any) -> object:
    """Decode a stored result as `type_`. Empty data counts as null.

    Args:
        data: Bytes from Redis, possibly written by a Go task.
        type_: Return annotation of the task. `Any` accepts every JSON value.

    Raises:
        ResultValueError: The bytes are not JSON, or are not a valid value of `type_`.
    """
    value, problem = _read(data or b"null", type_)
    if problem:
        raise ResultValueError(f"result: {problem}")
    return value


def result_type(function: Callable[..., Any]) -> Any:
    """Return the return annotation of a function. Return `Any` if it has none, or if its names cannot be resolved."""
    try:
        annotation = inspect.signature(function, eval_str=True).return_annotation
    except (NameError, TypeError, ValueError, AttributeError, SyntaxError):
        return Any
    return Any if annotation is inspect.Signature.empty else annotation


def decode_payload(payload: bytes, type_: Any, *, task: str) -> object:
    """Decode the payload of the task named `task` as `type_`. An empty payload counts as an empty object.

    Raises:
        PayloadError: The bytes are not JSON, or are not a valid value of `type_`.
    """
    value, problem = _read(payload or b"{}", type_)
    if problem:
        raise PayloadError(task, "", problem)
    return value


def _read(data: bytes, type_: Any) -> tuple[object, str]:
    """Decode data as a type. Return the value and an error text, "" if there was no error.

    It returns the error text instead of raising, so that the context of the caller's error does not contain the value.
    """
    try:
        return _decoder(type_).decode(data), ""
    except msgspec.ValidationError as exc:
        return None, describe(exc, type_, split_path(str(exc))[1] or "")
    except TypeError as exc:  # msgspec does not support the type
        return None, f"cannot be read as {type_name(type_)} ({type(exc).__name__})"
    except Exception as exc:
        return None, describe_unreadable(exc)


@lru_cache(maxsize=1024)
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(Any if type_ is inspect.Parameter.empty else type_, dec_hook=build)
