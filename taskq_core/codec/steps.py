"""Check and encode the names, results, signals and emitted values of a task with steps."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from taskq_core.codec.results import decode_result, encode_result
from taskq_core.codec.schemas import Schema, misfit, schema_of
from taskq_core.errors import ResultValueError, StepError

VALUE_BYTES = 1 << 20
"""Maximum bytes of the result of one step or of a signal."""
QUESTION_BYTES = 65_536
"""Maximum bytes of what a task asks."""
EMITTED_BYTES = 16_384
"""Maximum bytes of an emitted value."""
_NAME = re.compile(r"[^\x00-\x1f\x7f#:\ud800-\udfff]{1,100}")  # no surrogates, because UTF-8 cannot encode them


def check_step_name(what: str, name: object) -> str:
    """Return the name of a step or signal if it is valid: 1 to 100 characters, no control characters, '#' or ':'.

    Raises:
        StepError: The name is not valid.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problem = f"{what} must be 1 to 100 characters of text without '#' and ':', got {name!r:.120}"
        raise StepError(problem, is_final=True)
    return name


def encode_value(what: str, value: object, limit: int = VALUE_BYTES) -> bytes:
    """Encode the result of a step, a signal or an emitted value as JSON.

    Raises:
        StepError: The value has no JSON form, or has more than `limit` bytes.
    """
    try:
        data = encode_result(value)
    except ResultValueError as error:
        raise StepError(f"{what}: {str(error).removeprefix('result: ')}", is_final=True) from None
    if len(data) > limit:
        raise StepError(f"{what} must be at most {limit:,} bytes of JSON, got {len(data):,}", is_final=True)
    return data


def encode_question(task: str, asked: Mapping[str, object], type_: Any) -> bytes:
    """Encode what a task asks, with the name of its type and the schema of the answer.

    Raises:
        StepError: `asked` is not a dict with text as keys, has no JSON form, or has more than `QUESTION_BYTES` bytes.
    """
    if not isinstance(asked, Mapping) or not all(isinstance(each, str) for each in asked):
        raise StepError(f"ask must be a dict with text as keys, got {type(asked).__name__}", is_final=True)
    encode_value("a question", asked, QUESTION_BYTES)
    return encode_result({"task": task, "ask": asked, "schema": schema_of(type_)})


def check_answer(name: str, value: object, schema: Schema) -> bytes:
    """Encode the answer to a question. `true` stands for `{"approved": true}` and the reverse if only the other fits.

    Raises:
        StepError: The value does not fit the schema, has no JSON form, or is too large.
    """
    data = encode_value(f"the answer to {name!r}", value)
    problem = misfit(schema, msgspec.json.decode(data))
    if not problem:
        return data
    other = _APPROVALS.get(data)
    if other is not None and not misfit(schema, msgspec.json.decode(other)):
        return other
    raise StepError(f"the answer to {name!r} does not fit: {problem}; nothing was sent")


_APPROVALS = {
    b"true": b'{"approved":true}',
    b"false": b'{"approved":false}',
    b'{"approved":true}': b"true",
    b'{"approved":false}': b"false",
}
"""Pairs of equivalent signal values. They make the buttons "Approve" and "Reject" and signed links work for tasks that
expect a bool, and for tasks that expect an object with the field `approved`."""


def decode_signal(name: str, data: bytes, type_: Any, *, way_out: str) -> Any:
    """Decode the value of a signal as a type. If `true` does not fit, try `{"approved": true}`, and the reverse.

    Raises:
        StepError: The value does not fit the type.
    """
    what = f"the value of signal {name!r}"
    try:
        return decode_value(what, data, type_, way_out=way_out)
    except StepError:
        if data not in _APPROVALS:
            raise
        with suppress(StepError):
            return decode_value(what, _APPROVALS[data], type_, way_out=way_out)
        raise


def decode_value(what: str, data: bytes, type_: Any, *, way_out: str) -> Any:
    """Decode a stored value as a type.

    Raises:
        StepError: The value does not fit the type. The error message ends with `way_out`.
    """
    try:
        return decode_result(data, type_)
    except ResultValueError as error:
        raise StepError(f"{what} does not fit: {str(error).removeprefix('result: ')}; {way_out}") from None
