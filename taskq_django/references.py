"""Accept model instances as task arguments: the payload stores primary keys, and each run reads the rows again.

The core (`taskq_core.codec.references`) defines the rules. This module converts instances to keys and reads rows by
key, with one query per model. Rows are read from the database that the router writes the model to, because a replica
may be behind, and through the model's base manager, as `refresh_from_db` does.
"""

from collections.abc import Hashable
from enum import Enum
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import models, router

from taskq_core.codec import KeysToLoad, LoadedObjects, RefusedError


class ModelKind:
    """Converts instances of one model to primary keys, and reads them back."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def label(self) -> str:
        """Label of the model, such as `shop.Order`."""
        label: str = self._model._meta.label
        return label

    def to_json(self, value: object) -> object:
        """Return the primary key of an instance, or a given key, as a JSON value. A composite key is a list.

        Raises:
            RefusedError: The instance is of another model, was never saved or was deleted, or its row is in another
                database than the one a run reads; or the value is not a key.
        """
        parts: list[Any] = [value]
        if isinstance(value, models.Model):
            self._check(value)
            parts = [getattr(value, field.attname) for field in self._fields]
        elif self._is_composite:
            parts = list(value) if isinstance(value, tuple | list) else []
        if len(parts) != len(self._fields) or any(part is None for part in parts):
            raise RefusedError(f"expected a {self.label} or its primary key, got {type(value).__qualname__}")
        plain = [_to_json(field, part) for field, part in zip(self._fields, parts, strict=True)]
        return plain if self._is_composite else plain[0]

    def to_key(self, value: object) -> Hashable:
        """Return the primary key of a JSON value.

        Raises:
            RefusedError: The value is not a primary key of the model.
        """
        if not self._is_composite:
            return self._read(self._fields[0], value)
        if not isinstance(value, list) or len(value) != len(self._fields):
            raise RefusedError(f"expected the primary key of a {self.label}, a list of {len(self._fields)} values")
        return tuple(self._read(field, part) for field, part in zip(self._fields, value, strict=True))

    def fetch(self, keys: list[Hashable]) -> dict[Hashable, object]:
        """Read rows by their primary keys, in as few queries as the database allows."""
        rows: dict[Hashable, object] = self._model._base_manager.using(router.db_for_write(self._model)).in_bulk(keys)
        return rows

    @property
    def _fields(self) -> list[Any]:
        return list(self._model._meta.pk_fields)

    @property
    def _is_composite(self) -> bool:
        return bool(self._model._meta.is_composite_pk)

    def _check(self, instance: Any) -> None:
        """Refuse an instance that a run could not read by its key."""
        meta = instance._meta
        if not issubclass(meta.concrete_model, self._model._meta.concrete_model):
            raise RefusedError(f"expected a {self.label}, got a {meta.label}")
        if instance._state.adding or instance.pk is None:
            raise RefusedError(f"this {self.label} has no row: save it first, or enqueue before you delete it")
        there = router.db_for_write(self._model, instance=instance)
        read = router.db_for_write(self._model)
        if there != read:
            raise RefusedError(
                f"the row of this {self.label} is in database {there!r}, but a run would read it from {read!r}; "
                "let a database router return one database for both, or pass the key and read the row in the task"
            )

    def _read(self, field: Any, value: object) -> Hashable:
        if value is not None:
            try:
                key: Hashable = field.to_python(value)
                again = _to_json(field, key)
            except (ValidationError, TypeError, ValueError, ArithmeticError, RefusedError):
                pass
            else:
                # Refuse values that `to_python` converts to another type, such as "5", 5.7 or True to an int. Text may
                # become other text, because a UUID can be written in several ways.
                if type(again) is type(value) and (again == value or isinstance(value, str)):
                    return key
        raise RefusedError(f"expected the primary key of a {self.label}, got {_JSON_TYPES[type(value)]}")


_JSON_TYPES = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object"}


def _to_json(field: Any, value: Any) -> object:
    """Return a part of a key as a JSON value. A field may store the key as a type that has no JSON form."""
    for each in (_known, field.get_prep_value):
        try:
            return msgspec.to_builtins(_known(each(value)))
        except (TypeError, ValueError, ValidationError):
            continue
    raise RefusedError(f"a primary key of type {type(value).__qualname__} has no JSON form")


def _known(value: object) -> object:
    """Convert Django's `SafeString`, and PostgreSQL's `memoryview`, to types that have a JSON form."""
    if type(value) is not str and isinstance(value, str) and not isinstance(value, Enum):
        return str.__str__(value)  # `str(value)` would return the marked text unchanged
    return bytes(value) if isinstance(value, memoryview) else value


class ModelReferences:
    """Converts Django model instances in arguments. Implements the core's `References`."""

    def __init__(self) -> None:
        self._kinds: dict[type, ModelKind] = {}

    def kind(self, type_: type) -> ModelKind | None:
        """Return the converter for a class, or None if the class is not a model.

        Raises:
            TypeError: The model is abstract or swapped, so it has no rows.
        """
        if not issubclass(type_, models.Model):
            return None
        meta: Any = getattr(type_, "_meta", None)
        if meta is None or meta.abstract or meta.swapped:
            why = f"is swapped for {meta.swapped}" if meta is not None and meta.swapped else "is abstract"
            raise TypeError(f"{type_.__qualname__} {why} and has no rows; annotate a model that has rows")
        return self._kinds.setdefault(type_, ModelKind(type_))

    def fetch(self, keys_to_load: KeysToLoad) -> LoadedObjects:
        """Read rows with one query per model. Deleted rows are missing in the result."""
        found: dict[Any, dict[Hashable, object]] = {}
        for kind, keys in keys_to_load.items():
            assert isinstance(kind, ModelKind)
            found[kind] = kind.fetch(keys)
        return found

    async def afetch(self, keys_to_load: KeysToLoad) -> LoadedObjects:
        """Read rows as `fetch` does, in the thread that has the coroutine's database connections."""
        return await sync_to_async(self.fetch, thread_sensitive=True)(keys_to_load)
