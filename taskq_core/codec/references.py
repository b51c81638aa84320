"""Support arguments that are passed by key: the payload holds the keys, and the run fetches the objects.

An adapter knows the classes, for example the models of a database (`References`). This module finds them in the
parameters of a task. It reads an annotation such as `list[Order]` as a list of references to orders. The caller passes
orders or their keys, and the payload holds the keys as JSON values. Decoding a payload returns references, which are
then fetched.
"""

import collections.abc
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from typing import Annotated, Any, ClassVar, Protocol

import msgspec

from taskq_core.codec.messages import RefusedError, place, type_name

_ARRAYS = (list, set, frozenset, collections.abc.Sequence, collections.abc.Collection, collections.abc.Set)
_MAPPINGS = (dict, collections.abc.Mapping)
_LISTED = (list, tuple, set, frozenset)


class Kind(Protocol):
    """One class whose values travel as their keys."""

    @property
    def label(self) -> str:
        """Name of the class, for people."""
        ...

    def to_json(self, value: object) -> object:
        """Return the key of what a caller gave, as a JSON value: of a value of the class, or of its key itself.

        Raises:
            RefusedError: It is neither, or it has no key yet. The text names no value.
        """
        ...

    def to_key(self, value: object) -> Hashable:
        """Return the key of a JSON value.

        Raises:
            RefusedError: It is not a key. The text names no value.
        """
        ...


Wanted = Mapping[Kind, list[Hashable]]
"""Keys to fetch, by kind; each once."""
Found = Mapping[Kind, Mapping[Hashable, object]]
"""Values by their keys, by kind. Deleted values are missing."""


class References(Protocol):
    """The classes of an adapter whose values travel as their keys."""

    def kind(self, type_: type) -> Kind | None:
        """Return how values of a class travel; None where it is not the adapter's.

        Raises:
            TypeError: It is, and its values cannot travel. The text says why.
        """
        ...

    def fetch(self, wanted: Wanted) -> Found:
        """Fetch values, blocking."""
        ...

    async def afetch(self, wanted: Wanted) -> Found:
        """Fetch values without blocking the event loop."""
        ...


class Reference:
    """A key in the place of its value. There is a class of it for each kind."""

    __slots__ = ("key", "plain")
    kind: ClassVar[Kind]

    def __init__(self, plain: object) -> None:
        self.plain = plain
        self.key = self.kind.to_key(plain)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def with_references(hint: Any, references: References) -> Any:
    """Return an annotation with the classes of an adapter replaced by references to them; the same if there are none.

    Raises:
        TypeError: A class cannot travel.
    """
    arguments = typing.get_args(hint)
    if not arguments:
        kind = references.kind(hint) if isinstance(hint, type) else None
        return hint if kind is None else type(hint.__name__, (Reference,), {"__slots__": (), "kind": kind})
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner = with_references(arguments[0], references)
        return hint if inner is arguments[0] else Annotated[inner, *hint.__metadata__]
    kept = 1 if origin in _MAPPINGS else 0  # keys of an object are text, which a key need not be
    replaced = (*arguments[:kept], *(with_references(each, references) for each in arguments[kept:]))
    if all(new is old for new, old in zip(replaced, arguments, strict=True)):
        return hint
    if origin in (typing.Union, types.UnionType):
        return typing.Union[replaced]  # noqa: UP007 - made of what is known at run time only
    if origin is tuple or origin in _ARRAYS or origin in _MAPPINGS:
        return origin[replaced]
    raise TypeError(f"{type_name(hint)} cannot hold what travels as its key; lists, tuples, sets and dicts can")


def holds_references(hint: Any) -> bool:
    """Return whether an annotation contains references."""
    if isinstance(hint, type) and issubclass(hint, Reference):
        return True
    return any(holds_references(each) for each in typing.get_args(hint) if not isinstance(each, str))


def refer(hint: Any, value: object, at: str = "") -> object:
    """Return a value with references in the place of what travels as its key.

    Raises:
        RefusedError: A value has no key, or is of another class.
    """
    if isinstance(hint, type) and issubclass(hint, Reference):
        try:
            return hint(hint.kind.to_json(value))
        except RefusedError as error:
            problem = f"{error}{place(at)}"
        raise RefusedError(problem)
    arguments, origin = typing.get_args(hint), typing.get_origin(hint)
    if not arguments or value is None:
        return value
    if origin is Annotated:
        return refer(arguments[0], value, at)
    if origin in (typing.Union, types.UnionType):
        inner = [each for each in arguments if each is not types.NoneType]
        return refer(inner[0], value, at) if len(inner) == 1 else value
    if not holds_references(hint):
        return value
    if origin in _MAPPINGS:
        if isinstance(value, dict):
            return {key: refer(arguments[1], each, f"{at}[...]") for key, each in value.items()}
    elif isinstance(value, _LISTED):
        hints = _hints(origin, arguments, len(value))
        if hints is not None:
            pairs = zip(hints, value, strict=True)
            items = [refer(each, item, f"{at}[{index}]") for index, (each, item) in enumerate(pairs)]
            # A set has no order, and equal calls make equal bytes.
            return sorted(items, key=_encode) if isinstance(value, set | frozenset) else items
    raise RefusedError(f"expected {type_name(hint)}, got {type(value).__qualname__}{place(at)}")


_encode = msgspec.json.Encoder(enc_hook=lambda reference: reference.plain).encode


def _hints(origin: Any, arguments: tuple[Any, ...], length: int) -> tuple[Any, ...] | None:
    """Return the annotation of each item of an array, None if it has another length."""
    if origin is not tuple or arguments[-1] is Ellipsis:
        return (arguments[0],) * length
    return arguments if len(arguments) == length else None


def replace(value: object, by: Callable[[Reference], object]) -> object:
    """Return a decoded value with its references replaced."""
    if isinstance(value, Reference):
        return by(value)
    if isinstance(value, dict):
        return {key: replace(each, by) for key, each in value.items()}
    if isinstance(value, _LISTED):
        return type(value)(replace(each, by) for each in value)
    return value
