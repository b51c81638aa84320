"""The digest in the name of a unique lock. It covers the payload, or some of its arguments, as in Asynq."""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from taskq_core.errors import ConfigurationError


def names_in(rule: str) -> Sequence[str] | None:
    """Return the argument names in a stored rule, `<until><seconds>[:<names>]`; None if all arguments count."""
    _, colon, names = rule.partition(":")
    return (names.split(",") if names else ()) if colon else None


def chosen(payload: bytes, names: Iterable[str]) -> bytes:
    """Return the JSON object of some arguments of a payload, in its order; a missing one is left out.

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
    """Return the MD5, in hexadecimal, of the arguments that count; `names` None counts the whole payload."""
    counted = payload if names is None else chosen(payload, names)
    return hashlib.md5(counted, usedforsecurity=False).hexdigest()
