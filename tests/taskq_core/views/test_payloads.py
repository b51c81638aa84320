"""Test displayed payloads: they are indented, unless that makes them too long."""

import json

from taskq_core.views.payloads import LAID_OUT_BYTES, as_text


def test_json_is_indented() -> None:
    assert as_text(b'{"a":[1,2]}') == json.dumps({"a": [1, 2]}, indent=2)


def test_deeply_nested_json_is_not_indented() -> None:
    """Laid out it would take hundreds of times its size."""
    payload = b"[" * 400 + b"1," * 32_000 + b"1" + b"]" * 400

    assert as_text(payload) == payload.decode()
    assert len(payload) < LAID_OUT_BYTES
