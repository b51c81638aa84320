"""Compute the digest in the key of a unique lock, from the whole payload, as in Asynq, or from some arguments."""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from taskq_core.errors import ConfigurationError


def names_in(rule: str) -> Sequence[str] | None:
    """Return the argument names in a stored rule, `<until><seconds>[:<names>]`; None if all arguments count."""
    _, colon, names = rule.partition(":")
    return (names.split(",") if names else ()) if colon else None


def chosen(payload: bytes, names: Iterable[str]) -> bytes:
    """Return a JSON object with some arguments of a payload, in the payload's order. Missing arguments are left out.

    Raises:
        ConfigurationError: The payload is not a JSON object of arguments by name.
    """
    wanted = frozenset(names)
    try:
        arguments = msgspec.json.decode(payload or b"{}", type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigurationError("unique args need a payload that is a JSON object of arguments by name") from None
    return msgspec.json.encode({name: value for name, value in arguments.items() if name in wanted})


def digest(payload: bytes, names: Iterable[str] | None) -> str:
    """Return the hexadecimal MD5 digest of the named arguments; of the whole payload if `names` is None."""
    counted = payload if names is None else chosen(payload, names)
    return hashlib.md5(counted, usedforsecurity=False).hexdigest()
