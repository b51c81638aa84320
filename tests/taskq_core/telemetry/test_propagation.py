import logging
from collections.abc import Mapping, MutableMapping

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from taskq_core.errors import ConfigurationError
from taskq_core.telemetry import propagation
from tests.logged import logged_here


def inject(headers: MutableMapping[str, str], context: Context | None = None, *, baggage: bool = True) -> int:
    return propagation.fit(headers, propagation.trace_headers(context, baggage=baggage))


TRACE_ID, SPAN_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def traced(entries: Mapping[str, str] | None = None, state: list[tuple[str, str]] | None = None) -> Context:
    span_context = SpanContext(TRACE_ID, SPAN_ID, False, TraceFlags(1), TraceState(state or []))
    context = trace.set_span_in_context(NonRecordingSpan(span_context), Context())
    for name, value in (entries or {}).items():
        context = baggage.set_baggage(name, value, context)
    return context


def test_trace_state_and_baggage_are_written_as_w3c_headers() -> None:
    headers: dict[str, str] = {"tenant": "blue"}

    inject(headers, traced({"user": "a b"}, [("vendor", "x1")]))

    assert headers == {"tenant": "blue", "traceparent": TRACEPARENT, "tracestate": "vendor=x1", "baggage": "user=a+b"}


def test_the_current_context_is_the_default() -> None:
    headers: dict[str, str] = {}
    token = context_api.attach(traced())

    inject(headers)

    context_api.detach(token)
    assert headers == {"traceparent": TRACEPARENT}


def test_without_a_span_no_header_is_written_and_the_propagator_is_not_called(
    clean_globals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> TextMapPropagator:
        raise AssertionError("asked")

    monkeypatch.setattr(propagation, "get_global_textmap", refuse)
    headers: dict[str, str] = {}

    inject(headers, Context())

    assert headers == {}


def test_baggage_can_be_disabled() -> None:
    headers: dict[str, str] = {}

    inject(headers, traced({"user": "7"}), baggage=False)

    assert headers == {"traceparent": TRACEPARENT}


def test_baggage_over_the_limit_is_omitted_and_counted() -> None:
    headers = {"own": "x" * 7000}

    left_out = inject(headers, traced({"big": "b" * 2000}))

    assert headers == {"own": "x" * 7000, "traceparent": TRACEPARENT}
    assert left_out == 1


def test_the_limit_is_exact_and_counts_bytes(subtests: pytest.Subtests) -> None:
    for text in ["x", "ä"]:
        with subtests.test(text=text):
            width = len(text.encode())
            full = {"k": text * ((propagation.USER_HEADERS_LIMIT - 1) // width)}
            over = {"k": full["k"] + text * 2}

            inject(full, traced())
            with pytest.raises(ConfigurationError):
                inject(over, traced())

            assert full["traceparent"] == TRACEPARENT
            assert "traceparent" not in over


def test_headers_over_the_limit_are_refused_and_the_error_contains_only_sizes() -> None:
    with pytest.raises(ConfigurationError) as caught:
        inject({"secret": "hunter2" * 1200, "b": "x"}, Context())

    assert str(caught.value) == (
        "headers of a task have 8408 bytes, at most 7168 are allowed (8192, of which 1024 are reserved for the trace); "
        "the largest is 'secret' with 8406 bytes"
    )


def test_headers_of_an_older_trace_are_replaced_as_a_whole() -> None:
    headers = {"traceparent": "old", "tracestate": "old=1", "baggage": "old=1", "own": "x"}

    inject(headers, traced())

    assert headers == {"own": "x", "traceparent": TRACEPARENT}


def test_a_trace_state_over_the_limit_is_omitted_and_counted() -> None:
    state = [(f"vendor{number}", "v" * 200) for number in range(30)]
    headers = {"own": "x" * 7000}

    left_out = inject(headers, traced(state=state))

    assert "tracestate" not in headers
    assert headers["traceparent"] == TRACEPARENT
    assert left_out == 1


def test_written_headers_are_read_back() -> None:
    headers: dict[str, str] = {}
    inject(headers, traced({"user": "jörg, a=b"}, [("vendor", "x1")]))

    context = propagation.extract(headers)

    span_context = trace.get_current_span(context).get_span_context()
    assert (span_context.trace_id, span_context.span_id, span_context.is_remote) == (TRACE_ID, SPAN_ID, True)
    assert span_context.trace_state.get("vendor") == "x1"
    assert baggage.get_all(context) == {"user": "jörg, a=b"}


def test_reading_ignores_the_current_context() -> None:
    token = context_api.attach(traced({"user": "7"}))

    context = propagation.extract({"other": "1"})

    context_api.detach(token)
    assert context == {}


def test_unreadable_headers_are_ignored(subtests: pytest.Subtests) -> None:
    for headers in [
        {},
        {"traceparent": ""},
        {"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"},
        {"traceparent": "garbage\n", "baggage": "=;,,=\x00"},
        {"baggage": "a=" + "b" * 100_000},
    ]:
        with subtests.test(headers=headers):
            context = propagation.extract(headers)

            assert not trace.get_current_span(context).get_span_context().is_valid
            assert baggage.get_all(context) == {}


class OwnFormat(TextMapPropagator):
    """A custom propagator, which fails on request."""

    def __init__(self, *, fails: bool = False, value: object = 7) -> None:
        self.fails = fails
        self.value = value

    def inject(self, carrier: MutableMapping[str, object], context: object = None, setter: object = None) -> None:
        if self.fails:
            raise RuntimeError("no")
        setter.set(carrier, "x-own", self.value)  # type: ignore[attr-defined] # kept loose: only the call matters

    def extract(self, carrier: Mapping[str, str], context: Context | None = None, getter: object = None) -> Context:
        if self.fails:
            raise RuntimeError("no")
        return baggage.set_baggage("own", carrier["x-own"], context)

    @property
    def fields(self) -> set[str]:
        return {"x-own"}


def test_the_global_propagator_is_used_and_writes_plain_text(clean_globals: None) -> None:
    propagate.set_global_textmap(OwnFormat())
    headers: dict[str, str] = {}

    inject(headers, traced({"user": "7"}))

    assert headers == {"x-own": "7"}
    headers["traceparent"] = TRACEPARENT
    assert baggage.get_all(propagation.extract(headers)) == {"own": "7"}


def test_a_failing_propagator_loses_only_the_trace(clean_globals: None, caplog: pytest.LogCaptureFixture) -> None:
    propagate.set_global_textmap(OwnFormat(fails=True))
    headers = {"own": "x"}

    with caplog.at_level(logging.WARNING):
        inject(headers, traced())
        context = propagation.extract(headers)

    assert headers == {"own": "x"}
    assert context == {}
    assert len(logged_here(caplog)) == 2


class Unwritable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_header_value_that_is_no_text_loses_only_the_trace(
    clean_globals: None, caplog: pytest.LogCaptureFixture
) -> None:
    propagate.set_global_textmap(OwnFormat(value=Unwritable()))

    assert propagation.trace_headers(traced()) == {}
    assert "could not be written" in caplog.text


def test_baggage_that_cannot_be_encoded_keeps_the_trace() -> None:
    headers: dict[str, str] = {}

    inject(headers, traced({"user": "\ud800"}))

    assert headers["traceparent"] == TRACEPARENT
