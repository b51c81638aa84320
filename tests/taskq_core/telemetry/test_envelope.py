import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.telemetry.envelope import is_valid_traceparent, unwrap, wrap

TP = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PAYLOAD = b'{"to": "a@b.c",  "n": 1.0, "text":"\\u00e4\xc3\xa4"}'


def test_a_payload_comes_back_byte_for_byte() -> None:
    wrapped = wrap(PAYLOAD, {"traceparent": TP})

    assert wrapped == b'{"traceparent":"' + TP.encode() + b'","data":' + PAYLOAD + b"}"
    assert unwrap(wrapped, ("to", "n", "text")) == (PAYLOAD, TP)


def test_order_and_white_space_do_not_matter(subtests: pytest.Subtests) -> None:
    for payload in [
        f'{{"data":{{"a":1}},"traceparent":"{TP}"}}',
        f' {{ "traceparent" : "{TP}" ,\n "data" : {{"a":1}} }}\n',
        f'\t{{"data" :\r\n{{"a":1}} , "traceparent": "{TP}" }} ',
    ]:
        with subtests.test(payload=payload):
            assert unwrap(payload.encode(), ()) == (b'{"a":1}', TP)


def test_anything_else_is_the_task_s_own_payload(subtests: pytest.Subtests) -> None:
    for payload in [
        b"",
        b"{}",
        b"not json",
        b'{"to":"a"}',
        f'{{"traceparent":"{TP}"}}'.encode(),
        b'{"data":{}}',
        f'{{"traceparent":"{TP}","data":{{}},"more":1}}'.encode(),
        f'{{"more":1,"traceparent":"{TP}","data":{{}}}}'.encode(),
        f'{{"data":{{}},"more":1,"traceparent":"{TP}"}}'.encode(),
        f'{{"data":{{"data":{{}},"traceparent":"{TP}"}}}}'.encode(),
        f'{{"traceparent":"{TP}","data":[1]}}'.encode(),
        f'{{"traceparent":"{TP}","data":"text"}}'.encode(),
        f'{{"traceparent":"{TP}","data":{{"a":1,}}}}'.encode(),
        f'{{"traceparent":"{TP}","data":{{}}}} x'.encode(),
        f'{{"traceparent":"{TP}","data":{{}}'.encode(),
        f'{{"traceparent":"{TP}","data":}}'.encode(),
        f'[{{"traceparent":"{TP}","data":{{}}}}]'.encode(),
        b'{"traceparent":7,"data":{}}',
        f'{{"traceparent":"{TP.upper()}","data":{{}}}}'.encode(),
        f'{{"traceparent":"{TP}-more","data":{{}}}}'.encode(),
        f'{{"traceparent":"ff{TP[2:]}","data":{{}}}}'.encode(),
        f'{{"traceparent":"00-{"0" * 32}-00f067aa0ba902b7-01","data":{{}}}}'.encode(),
        f'{{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-{"0" * 16}-01","data":{{}}}}'.encode(),
    ]:
        with subtests.test(payload=payload):
            assert unwrap(payload, ()) == (payload, None)


def test_a_task_with_such_a_parameter_is_neither_wrapped_nor_unwrapped(subtests: pytest.Subtests) -> None:
    for parameter in ["traceparent", "data"]:
        with subtests.test(parameter=parameter):
            wrapped = wrap(PAYLOAD, {"traceparent": TP})

            assert unwrap(wrapped, (parameter, "x")) == (wrapped, None)
            assert wrap(PAYLOAD, {"traceparent": TP}, (parameter,)) == PAYLOAD


def test_without_a_valid_trace_a_payload_stays_as_it_is(subtests: pytest.Subtests) -> None:
    for headers in [{}, {"traceparent": "garbage"}, {"traceparent": 'x","data":{}}'}]:
        with subtests.test(headers=headers):
            assert wrap(PAYLOAD, headers) == PAYLOAD


def test_a_payload_that_is_no_json_object_is_not_wrapped(subtests: pytest.Subtests) -> None:
    for payload in [b"", b"raw bytes \x00", b"[1]", b'{"a":', b'{"a":1}{"b":2}', b"[" * 100_000]:
        with subtests.test(payload=payload):
            assert wrap(payload, {"traceparent": TP}) == payload


def test_a_later_version_of_traceparent_may_be_longer() -> None:
    later = "01" + TP[2:] + "-what-the-future-brings"

    assert is_valid_traceparent(later)
    assert unwrap(wrap(PAYLOAD, {"traceparent": later}), ()) == (PAYLOAD, later)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("data"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text() | st.sampled_from(["data", "traceparent"]), json_values, max_size=4), st.booleans())
def test_every_object_survives_the_envelope(value: dict[str, object], ascii_only: bool) -> None:
    payload = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace")

    assert unwrap(wrap(payload, {"traceparent": TP}), ()) == (payload, TP)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:datrcepn01- \n').map(str.encode))
def test_no_bytes_make_unwrapping_fail(payload: bytes) -> None:
    assert unwrap(payload, ()) == (payload, None)
