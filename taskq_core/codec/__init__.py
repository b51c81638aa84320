"""Encode the arguments of a call as payload bytes and decode them, and encode and decode results.

A payload is a JSON object of the arguments by parameter name, in the order of the signature. A Go struct with the same
field names can read it. Annotations decide how values are encoded. Supported are text, numbers, containers, `datetime`,
`date`, `timedelta` (ISO 8601), `UUID`, `Decimal` (as text), `bytes` (base64), enums, dataclasses, `TypedDict`, msgspec
Structs and Pydantic models. Pydantic models are recognized by their methods `model_validate` and `model_dump`, so
Pydantic need not be installed. An object of a class that an adapter knows is encoded as its key and loaded again before
the call (`References`). An argument that is annotated as `Any`, or not annotated, is decoded as plain JSON: a
`datetime` becomes text and a tuple becomes a list.

Guarantees:

- The encoder writes nothing that the task cannot read back.
- Equal calls are encoded to equal bytes.
- An omitted argument is not in the payload, so the default of the worker's code applies.
- No error contains the value of an argument, neither in its text nor in its chain.

The caller checks size limits.
"""

from taskq_core.codec.arguments import ArgumentsCodec, Later
from taskq_core.codec.messages import RefusedError
from taskq_core.codec.references import KeysToLoad, Kind, LoadedObjects, References
from taskq_core.codec.results import (
    decode_payload,
    decode_result,
    encode_result,
    encode_result_within,
    result_type,
)
from taskq_core.codec.schemas import Schema, misfit, schema_of
from taskq_core.codec.signature import Parameter
from taskq_core.codec.steps import (
    EMITTED_BYTES,
    check_answer,
    check_step_name,
    decode_signal,
    decode_value,
    encode_question,
    encode_value,
)
