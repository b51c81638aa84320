"""Turn the arguments of a call into payload bytes and back, and results likewise.

A payload is the JSON object of the parameters by name, in the order of the signature, so a Go struct with the same
field names reads it. Values follow the annotations: text, numbers, containers, `datetime`, `date`, `timedelta` (ISO
8601), `UUID`, `Decimal` (as text), `bytes` (base64), enums, dataclasses, `TypedDict`, msgspec Structs and Pydantic
models, which are known by their face (`model_validate`, `model_dump`) and need not be installed. Classes that an
adapter knows travel as their keys and are fetched before the call (`References`). Arguments
annotated as `Any`, or not at all, pass as JSON: a `datetime` arrives there as text, a tuple as a list.

Guarantees: nothing the task cannot read back is ever written; equal calls make equal bytes; an omitted argument
stays out of the payload, so the consumer's default applies; no error carries the value of an argument, neither in
its text nor in its chain. Size limits, and payloads wrapped together with a trace context, are left to the caller.
"""

from taskq_core.codec.arguments import ArgumentsCodec, Later
from taskq_core.codec.messages import RefusedError
from taskq_core.codec.references import Found, Kind, References, Wanted
from taskq_core.codec.results import decode_payload, decode_result, encode_result, encode_result_within
from taskq_core.codec.signature import Parameter
