"""Support arguments that are passed by key: the payload contains the keys, and the run loads the objects.

An adapter names the classes, for example database models (`References`). This module finds these classes in the
annotations of a task: `list[Order]` becomes a list of references to orders. The caller passes orders or their keys. The
payload contains the keys as JSON values. A decoded payload contains `Reference`s, which the worker replaces by the
loaded objects.
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
    """A class whose objects are stored in payloads as keys."""

    @property
    def label(self) -> str:
        """Name of the class for display."""
        ...

    def to_json(self, value: object) -> object:
        """Return the key of an argument as a JSON value. The argument is an object of the class or its key.

        Raises:
            RefusedError: The argument is of another type, or the object has no key yet. The error text contains no
                value.
        """
        ...

    def to_key(self, value: object) -> Hashable:
        """Return the key from a JSON value of a payload.

        Raises:
            RefusedError: The value is not a key. The error text contains no value.
        """
        ...


KeysToLoad = Mapping[Kind, list[Hashable]]
"""Keys of the objects to load, by kind, without duplicates."""
LoadedObjects = Mapping[Kind, Mapping[Hashable, object]]
"""Loaded objects by kind and key. Objects that no longer exist are missing."""


class References(Protocol):
    """The classes of an adapter whose objects are stored in payloads as keys."""

    def kind(self, type_: type) -> Kind | None:
        """Return the `Kind` of a class, None if the class does not belong to the adapter.

        Raises:
            TypeError: The class belongs to the adapter, but its objects cannot be passed by key. The error says why.
        """
        ...

    def fetch(self, keys_to_load: KeysToLoad) -> LoadedObjects:
        """Load the objects with these keys, blocking the caller."""
        ...

    async def afetch(self, keys_to_load: KeysToLoad) -> LoadedObjects:
        """Load the objects with these keys without blocking the event loop."""
        ...


class Reference:
    """The key of an object that is loaded later. Each `Kind` has a separate subclass."""

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
    """Return an annotation with the classes of an adapter replaced by reference classes.

    Return the same annotation if it has no such class.

    Raises:
        TypeError: Objects of a class cannot be passed by key.
    """
    arguments = typing.get_args(hint)
    if not arguments:
        kind = references.kind(hint) if isinstance(hint, type) else None
        return hint if kind is None else type(hint.__name__, (Reference,), {"__slots__": (), "kind": kind})
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner = with_references(arguments[0], references)
        return hint if inner is arguments[0] else Annotated[inner, *hint.__metadata__]
    # Do not replace the keys of a mapping. JSON turns keys into text, but the key of a database object may be a number.
    unchanged = 1 if origin in _MAPPINGS else 0
    replaced = (*arguments[:unchanged], *(with_references(each, references) for each in arguments[unchanged:]))
    if all(new is old for new, old in zip(replaced, arguments, strict=True)):
        return hint
    if origin in (typing.Union, types.UnionType):
        return typing.Union[replaced]  # noqa: UP007 - the members are known only at run time
    if origin is tuple or origin in _ARRAYS or origin in _MAPPINGS:
        return origin[replaced]
    raise TypeError(f"{type_name(hint)} cannot contain objects that are passed by key; use a list, tuple, set or dict")


def holds_references(hint: Any) -> bool:
    """Return whether an annotation contains references."""
    if isinstance(hint, type) and issubclass(hint, Reference):
        return True
    return any(holds_references(each) for each in typing.get_args(hint) if not isinstance(each, str))


def refer(hint: Any, value: object, at: str = "") -> object:
    """Return a value with its objects replaced by references.

    Raises:
        RefusedError: An object has no key, or is of another class.
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
            # Sort the items of a set, so that equal calls have equal bytes.
            return sorted(items, key=_encode) if isinstance(value, set | frozenset) else items
    raise RefusedError(f"expected {type_name(hint)}, got {type(value).__qualname__}{place(at)}")


_encode = msgspec.json.Encoder(enc_hook=lambda reference: reference.plain).encode


def _hints(origin: Any, arguments: tuple[Any, ...], length: int) -> tuple[Any, ...] | None:
    """Return the annotation of each item of a list or tuple, None if its length does not match."""
    if origin is not tuple or arguments[-1] is Ellipsis:
        return (arguments[0],) * length
    return arguments if len(arguments) == length else None


def replace(value: object, by: Callable[[Reference], object]) -> object:
    """Return a decoded value in which each reference is replaced by the result of calling `by` with this reference."""
    if isinstance(value, Reference):
        return by(value)
    if isinstance(value, dict):
        return {key: replace(each, by) for key, each in value.items()}
    if isinstance(value, _LISTED):
        return type(value)(replace(each, by) for each in value)
    return value
