"""The JSON schema of the type of an answer, and the check of a value against a schema."""

from functools import lru_cache
from typing import Any

import msgspec

from taskq_core.codec.values import is_model

SCHEMA_BYTES = 16_384
"""Maximum bytes of a schema as JSON. A larger schema is replaced by one that allows everything."""
Schema = dict[str, Any]


@lru_cache(maxsize=256)
def schema_of(type_: Any) -> Schema:
    """Return the JSON schema of a type. Empty, so that every value is allowed, if the type has none.

    Classes that msgspec does not know, such as Pydantic models inside of a list, allow every value.
    """
    try:
        schema = type_.model_json_schema() if is_model(type_) else msgspec.json.schema(type_, schema_hook=lambda _: {})
    except (TypeError, RuntimeError, ValueError):
        return {}
    return {} if len(msgspec.json.encode(schema)) > SCHEMA_BYTES else schema


def misfit(schema: Schema, value: Any) -> str:
    """Return where and why a JSON value does not fit a schema, "" if it fits. The text does not contain the value."""
    from jsonschema import Draft202012Validator  # imported here, because few processes answer questions
    from jsonschema.exceptions import best_match
    from referencing import Registry

    # An empty registry refuses references to other documents, so that no schema makes this process request them.
    error = best_match(Draft202012Validator(schema, registry=Registry()).iter_errors(value))
    if error is None:
        return ""
    return f"{error.json_path} does not fit {error.validator} {error.validator_value!r:.200}"
