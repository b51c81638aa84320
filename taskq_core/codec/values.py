"""Convert single values to JSON values and back, and check whether an argument matches its annotation.

msgspec does most of the work. This module adds three things: Pydantic models; a fixed order of sets and dicts, so that
equal calls are encoded to equal bytes; and checks that msgspec does not make, because it would write NaN as null and
accept text as a `UUID`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from taskq_core.codec.messages import TOO_DEEP, RefusedError, describe, describe_unwritable, place, split_path
from taskq_core.codec.references import Reference


def is_model(type_: object) -> bool:
    """Return whether a class has the methods of a Pydantic model. Pydantic need not be installed."""
    return callable(getattr(type_, "model_validate", None)) and callable(getattr(type_, "model_dump", None))


def dump(value: Any) -> object:
    """Convert a value of a class that msgspec does not know to JSON values (msgspec's `enc_hook`)."""
    if isinstance(value, Reference):
        return value.plain
    if is_model(type(value)):
        # Warnings of pydantic contain values, so turn them off. Reading the bytes back finds a wrong value.
        return value.model_dump(mode="json", by_alias=True, warnings=False)
    raise RefusedError(f"{type(value).__qualname__} has no JSON form")


def build(type_: Any, value: object) -> object:
    """Build a value of a class that msgspec does not know from decoded JSON (msgspec's `dec_hook`)."""
    if type_ is object:
        return value
    if issubclass(type_, Reference):
        return type_(value)
    try:
        # A strict model accepts text for a UUID only from JSON, and not as a Python value.
        if validate := getattr(type_, "model_validate_json", None):
            return validate(encode_plain(value))
        return type_.model_validate(value)
    except MemoryError:
        raise  # the value may be valid, so it must not be reported as wrong
    except Exception as exc:
        reason = _model_reason(type_, exc)
    raise RefusedError(reason)


def _accept_or_build(type_: Any, value: object) -> object:
    """Return the value if it already has the right class, otherwise build it (`dec_hook` for arguments of a call)."""
    if isinstance(value, type_):
        return value
    if value is None or isinstance(value, str | int | float | list | tuple | dict):
        return build(type_, value)
    raise RefusedError(f"expected {type_.__qualname__}, got {type(value).__qualname__}")


def _model_reason(type_: Any, exc: Exception) -> str:
    """Return the fields that a model rejected and the types of its errors, but no messages, which may quote values."""
    try:
        fields = {*type_.model_fields, *(each.alias for each in type_.model_fields.values())}
        errors = exc.errors()  # type: ignore[attr-defined] # a method of Pydantic, which need not be installed
        found = [f"{error['loc'][0]}: {error['type']}" for error in errors if fields.intersection(error["loc"][:1])]
    except Exception:
        found = []
    return f"rejected by {type_.__qualname__} ({', '.join(found[:3]) or type(exc).__name__})"


encode_ordered = msgspec.json.Encoder(enc_hook=dump, order="deterministic").encode
encode_plain = msgspec.json.Encoder(enc_hook=dump).encode
read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def to_plain(value: object) -> object:
    """Convert a value to JSON's own types: text, numbers, lists and dicts with text as keys."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=dump)


def check_value(hint: Any, decode: Callable[[bytes], object], value: object) -> tuple[object, str, str]:
    """Check a value against its annotation. Return its JSON values, an error text and a warning ("" if there is none).

    The warning says that the task gets another type, for example text instead of a `datetime`.
    """
    try:
        plain = to_plain(_order_sets(value))
        if holds_non_finite(plain):
            return None, "NaN and infinity have no JSON form", ""
        written = encode_ordered(plain)
    except Exception as exc:
        return None, describe_unwritable(exc, value), ""
    try:
        msgspec.convert(value, hint, dec_hook=_accept_or_build)
        read = decode(written)
    except msgspec.ValidationError as exc:
        return None, describe(exc, hint, split_path(str(exc))[1] or "", type(value)), ""
    except RecursionError:
        return None, TOO_DEEP, ""
    except Exception as exc:
        return None, f"{type(value).__qualname__} cannot be read back ({type(exc).__name__})", ""
    problem, loss = _compare(value, read, "")
    return plain, problem, loss


def _order_sets(value: object) -> object:
    """Sort the members of sets by their JSON, because enums and mixed types cannot be compared."""
    if isinstance(value, set | frozenset):
        return sorted((_order_sets(each) for each in value), key=encode_plain)
    if isinstance(value, list | tuple):
        return [_order_sets(each) for each in value]
    if isinstance(value, dict):
        return {key: _order_sets(each) for key, each in value.items()}
    return value


def holds_non_finite(plain: object) -> bool:
    """Return whether a plain value contains NaN or infinity, which msgspec would write as null."""
    if isinstance(plain, float):
        return not math.isfinite(plain)
    if isinstance(plain, list | tuple):
        return any(map(holds_non_finite, plain))
    return isinstance(plain, dict) and any(map(holds_non_finite, plain.values()))


def _compare(value: object, read: object, at: str) -> tuple[str, str]:
    """Compare a value with the value that the task will read. Return an error text and a warning, "" if none.

    It is an error if text or a number is read as another type, because msgspec would accept text as a UUID. It is a
    warning if a value of another type is read as text, a number or a dict, and so loses its type.
    """
    pairs: Iterable[tuple[object, object, str]] = ()
    if isinstance(value, list | tuple) and isinstance(read, list | tuple) and len(value) == len(read):
        pairs = ((each, other, f"{at}[{index}]") for index, (each, other) in enumerate(zip(value, read, strict=True)))
    elif isinstance(value, dict) and isinstance(read, dict) and value.keys() == read.keys():
        pairs = ((each, read[key], f"{at}[...]") for key, each in value.items())
    elif isinstance(value, str | int | float):
        if not isinstance(read, _ARRIVES_AS[_family(value)]):
            return f"expected {type(read).__qualname__}, got {type(value).__qualname__}{place(at)}", ""
    elif isinstance(read, str | int | float | dict) and not isinstance(value, Mapping | Reference):
        return "", f"a {type(value).__qualname__}{place(at)} arrives as {type(read).__qualname__}"
    loss = ""
    for pair in pairs:
        problem, lost = _compare(*pair)
        if problem:
            return problem, ""
        loss = loss or lost
    return "", loss


_ARRIVES_AS: dict[type, tuple[type, ...]] = {str: (str,), int: (int, float, Decimal), float: (float,)}


def _family(value: object) -> type:
    if isinstance(value, Enum) and isinstance(value.value, str | int | float):
        value = value.value
    return next(each for each in (str, int, float) if isinstance(value, each))
