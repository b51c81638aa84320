import asyncio
import logging
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from taskq_core.errors import ConfigurationError, Discard, Retry, SkipRetry, Snooze, TaskControl
from taskq_core.telemetry import FIRST_RUN, ConsumerSpan, Relation, Tracing, extract
from taskq_core.telemetry.propagation import HEADERS_LIMIT, fit
from taskq_core.telemetry.redaction import Redaction
from tests.logged import logged_here

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
CLIENT_ID = f"{socket.gethostname()}:{os.getpid()}"
UNSAMPLED = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-00"}


def enqueue(tracing: Tracing) -> dict[str, str]:
    headers: dict[str, str] = {}
    span = tracing.start_producer("low", "email:deliver", "id-1")
    with span.current():
        fit(headers, span.trace_headers())
    return headers


def consume(tracing: Tracing, headers: dict[str, str], **more: Any) -> ConsumerSpan:
    return tracing.start_consumer("low", "email:deliver", "id-1", retried=2, max_retry=25, headers=headers, **more)


def only(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return span


class TestOneTrace:
    def test_a_task_is_a_descendant_of_the_request_that_enqueued_it(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        tracing = Tracing(tracer_provider=provider)
        with provider.get_tracer("web").start_as_current_span("POST /signup", kind=SpanKind.SERVER):
            headers = enqueue(tracing)

        span = consume(tracing, headers)
        token = span.attach()
        with provider.get_tracer("mail").start_as_current_span("smtp"):
            pass
        context_api.detach(token)
        span.end("completed")

        request, send, process, own = (
            only(exporter, name) for name in ("POST /signup", "send low", "process low", "smtp")
        )
        assert [child.parent.span_id for child in (send, process, own) if child.parent] == [
            parent.context.span_id for parent in (request, send, process)
        ]
        assert {span.context.trace_id for span in exporter.get_finished_spans()} == {request.context.trace_id}
        assert [link.context.span_id for link in process.links] == [send.context.span_id]
        assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)

    def test_a_link_starts_a_trace_that_points_to_the_request(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        tracing = Tracing(relation="link", tracer_provider=provider)
        headers = enqueue(tracing)

        consume(tracing, {**headers, "baggage": "user=7"}).end("completed")

        send, process = only(exporter, "send low"), only(exporter, "process low")
        assert process.parent is None
        assert process.context.trace_id != send.context.trace_id
        assert [link.context.span_id for link in process.links] == [send.context.span_id]

    def test_a_task_can_start_an_independent_trace(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        tracing = Tracing(relation="none", tracer_provider=provider)

        span = consume(tracing, {**SAMPLED, "baggage": "user=7"})
        span.end("completed")

        process = only(exporter, "process low")
        assert (process.parent, process.links) == (None, ())
        assert format(process.context.trace_id, "032x") != TRACE_ID
        assert baggage.get_all(span.context) == {"user": "7"}

    def test_the_relation_can_be_chosen_per_task(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        consume(Tracing(tracer_provider=provider), SAMPLED, relation=Relation.LINK).end("completed")
        consume(Tracing(tracer_provider=provider, relation="link"), SAMPLED, relation=Relation.PARENT).end("completed")

        linked, child = exporter.get_finished_spans()
        assert (len(linked.links), linked.parent) == (1, None)
        assert (len(child.links), format(child.context.trace_id, "032x")) == (1, TRACE_ID)

    @pytest.mark.parametrize("relation", ["parent", "link", "none"])
    def test_a_message_without_a_trace_starts_one_in_the_worker(
        self, provider: TracerProvider, exporter: InMemorySpanExporter, relation: str
    ) -> None:
        tracing = Tracing(relation=relation, tracer_provider=provider)
        with provider.get_tracer("worker").start_as_current_span("the worker's own"):
            consume(tracing, {}).end("completed")

        process = only(exporter, "process low")
        assert (process.parent, process.links) == (None, ())

    def test_a_send_after_commit_belongs_to_the_request_of_the_call(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        headers: dict[str, str] = {}
        with provider.get_tracer("web").start_as_current_span("request"):
            span = Tracing(tracer_provider=provider).start_producer("low", "email:deliver", "id-1")
            fit(headers, span.trace_headers())
        with provider.get_tracer("web").start_as_current_span("something else"):
            thread = threading.Thread(target=span.end)
            thread.start()
            thread.join()

        send = only(exporter, "send low")
        assert send.parent is not None
        assert send.parent.span_id == only(exporter, "request").context.span_id
        assert headers["traceparent"].split("-")[2] == format(send.context.span_id, "016x")

    def test_an_explicit_context_is_the_parent(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        tracing = Tracing(tracer_provider=provider)
        parent = trace.set_span_in_context(provider.get_tracer("web").start_span("request"), Context())

        tracing.start_producer("low", context=parent).end()

        send = only(exporter, "send low")
        assert send.parent == trace.get_current_span(parent).get_span_context()


class TestConventions:
    @pytest.mark.parametrize(
        ("opt_in", "names", "version"),
        [
            ("", {"messaging.system"}, "1.44.0"),
            ("http,messaging", {"messaging.system.name"}, "1.45.0"),
            ("messaging, messaging/dup", {"messaging.system", "messaging.system.name"}, "1.45.0"),
        ],
    )
    def test_the_environment_selects_old_or_new_names_or_both(
        self,
        provider: TracerProvider,
        exporter: InMemorySpanExporter,
        monkeypatch: pytest.MonkeyPatch,
        opt_in: str,
        names: set[str],
        version: str,
    ) -> None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)

        enqueue(Tracing(tracer_provider=provider))

        send = only(exporter, "send low")
        assert {name for name, value in (send.attributes or {}).items() if value == "asynq"} == names
        assert send.instrumentation_scope is not None
        assert send.instrumentation_scope.schema_url == f"https://opentelemetry.io/schemas/{version}"


class TestBatches:
    def test_each_task_of_a_batch_has_its_span_and_the_send_links_to_all(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        tracing = Tracing(tracer_provider=provider, server=("redis.local", 6380))
        with provider.get_tracer("web").start_as_current_span("request"):
            batch = tracing.start_batch("low")
            carried = [batch.create("email:deliver", task_id, 2) for task_id in ("id-1", "id-2")]
        batch.end(count=2)

        request, send = only(exporter, "request"), only(exporter, "send low")
        created = [span for span in exporter.get_finished_spans() if span.name == "create low"]
        ids = [format(span.context.span_id, "016x") for span in created]
        assert [each["traceparent"].split("-")[2] for each in carried] == ids
        assert {span.parent.span_id for span in (*created, send) if span.parent} == {request.context.span_id}
        assert [span.kind for span in (*created, send)] == [SpanKind.PRODUCER, SpanKind.PRODUCER, SpanKind.CLIENT]
        assert [format(link.context.span_id, "016x") for link in send.links] == ids
        assert [(link.attributes or {})["messaging.message.id"] for link in send.links] == ["id-1", "id-2"]
        assert dict(send.attributes or {}) == {
            "messaging.system": "asynq",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": "low",
            "messaging.batch.message_count": 2,
            "messaging.client.id": CLIENT_ID,
            "server.address": "redis.local",
            "server.port": 6380,
        }
        assert dict(created[0].attributes or {}) == {
            "messaging.system": "asynq",
            "messaging.operation.name": "create",
            "messaging.operation.type": "create",
            "messaging.destination.name": "low",
            "messaging.message.id": "id-1",
            "messaging.client.id": CLIENT_ID,
            "messaging.asynq.task.type": "email:deliver",
            "server.address": "redis.local",
            "server.port": 6380,
        }

    def test_without_create_spans_all_tasks_continue_the_send(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        batch = Tracing(tracer_provider=provider, create_spans=False).start_batch("low")
        carried = batch.trace_headers()["traceparent"].split("-")[2]
        batch.end(count=2)

        assert not batch.has_spans
        (send,) = exporter.get_finished_spans()
        assert (carried, send.kind) == (format(send.context.span_id, "016x"), SpanKind.PRODUCER)

    def test_a_failed_batch_marks_its_span_as_an_error(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        batch = Tracing(tracer_provider=provider).start_batch("low")
        batch.end(ValueError("boom"), count=3)
        batch.end()

        send = only(exporter, "send low")
        assert (send.status.status_code, (send.attributes or {})["error.type"]) == (StatusCode.ERROR, "ValueError")

    def test_tasks_of_an_unsampled_request_propagate_its_trace(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        token = context_api.attach(extract(UNSAMPLED))
        batch = Tracing(tracer_provider=provider).start_batch("low")
        context_api.detach(token)

        assert not batch.has_spans
        assert batch.trace_headers() == UNSAMPLED
        batch.end(count=1)
        assert exporter.get_finished_spans() == ()

    def test_tasks_of_an_unsampled_root_are_unsampled(self) -> None:
        provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
        batch = Tracing(tracer_provider=provider).start_batch("low")

        assert not batch.has_spans
        flags = batch.trace_headers()["traceparent"].rpartition("-")[2]
        assert int(flags, 16) & 1 == 0  # the other bits say how the id was made


class TestAttempts:
    def test_later_attempts_link_to_the_first(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        tracing = Tracing(tracer_provider=provider)
        first = consume(tracing, SAMPLED)
        first.end("retry", ValueError("x"))
        assert first.traceparent is None  # it has ended

        once_more = consume(tracing, SAMPLED)
        known = once_more.traceparent
        assert known is not None
        consume(tracing, {**SAMPLED, FIRST_RUN: known}).end("completed")

        again = exporter.get_finished_spans()[-1]
        assert once_more.span is not None
        _, first_run = again.links  # beside the link to the enqueue
        assert first_run.context.span_id == once_more.span.get_span_context().span_id
        assert format(again.context.trace_id, "032x") == TRACE_ID

    @pytest.mark.parametrize("hostile", ["", "00", "x" * 9000, f"00-{'0' * 32}-{'0' * 16}-01", "\x00\r\n"])
    def test_an_invalid_trace_causes_no_link(
        self, provider: TracerProvider, exporter: InMemorySpanExporter, hostile: str
    ) -> None:
        consume(Tracing(tracer_provider=provider), {FIRST_RUN: hostile, "traceparent": hostile}).end("completed")

        assert only(exporter, "process low").links == ()


class TestSampling:
    @pytest.mark.parametrize(
        ("sampler", "asked"),
        [
            (ParentBased(ALWAYS_ON), 0),
            (ParentBased(ALWAYS_ON, remote_parent_not_sampled=ALWAYS_ON, local_parent_not_sampled=ALWAYS_ON), 3),
            (ALWAYS_ON, 3),
        ],
    )
    def test_a_parent_based_sampler_is_not_called_for_unsampled_requests(
        self, sampler: Sampler, asked: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[object] = []
        should_sample = type(sampler).should_sample

        def count(self: Sampler, *args: Any, **kwargs: Any) -> SamplingResult:
            if self is sampler:
                calls.append(args)
            return should_sample(self, *args, **kwargs)

        monkeypatch.setattr(type(sampler), "should_sample", count)
        tracing = Tracing(tracer_provider=TracerProvider(sampler=sampler, shutdown_on_exit=False))

        consume(tracing, UNSAMPLED).end("completed")
        token = context_api.attach(extract(UNSAMPLED))
        headers = enqueue(tracing)
        tracing.start_batch("low").end()
        context_api.detach(token)

        assert len(calls) == asked
        assert headers["traceparent"].startswith(f"00-{TRACE_ID}-")

    def test_baggage_is_propagated_even_if_it_was_not_read(self, provider: TracerProvider) -> None:
        """A run that is not sampled says as well that its message held far too much."""
        span = consume(Tracing(tracer_provider=provider), {**UNSAMPLED, "baggage": "k=" + "x" * HEADERS_LIMIT})

        assert span.span is None
        assert span.is_malformed

    def test_a_task_linked_to_an_unsampled_trace_is_sampled_independently(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        consume(Tracing(relation="link", tracer_provider=provider), UNSAMPLED).end("completed")

        assert len(only(exporter, "process low").links) == 1


class TestAttributes:
    def test_the_producer_span_has_the_documented_attributes(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        tracing = Tracing(tracer_provider=provider, server=("redis.local", 6380))

        tracing.start_producer("low", "email:deliver", "id-1", body_size=17).end()

        assert only(exporter, "send low").attributes == {
            "messaging.system": "asynq",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": "low",
            "messaging.message.id": "id-1",
            "messaging.client.id": CLIENT_ID,
            "messaging.asynq.task.type": "email:deliver",
            "server.address": "redis.local",
            "server.port": 6380,
        }

    def test_a_unix_socket_has_an_address_and_no_port(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        Tracing(tracer_provider=provider, server=("/run/redis.sock", 0)).start_producer("low").end()

        facts = only(exporter, "send low").attributes or {}
        assert facts["server.address"] == "/run/redis.sock"
        assert "server.port" not in facts

    def test_the_payload_size_is_an_optional_attribute(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        tracing = Tracing(tracer_provider=provider, opt_in=["body_size"])

        tracing.start_producer("low", "email:deliver", "id-1", body_size=17).end()
        consume(tracing, {}, body_size=17).end("completed")
        batch = tracing.start_batch("low")
        batch.create("email:deliver", "id-2", 18)

        sizes = [(span.attributes or {})["messaging.message.body.size"] for span in exporter.get_finished_spans()]
        assert sizes == [17, 17, 18]

    def test_the_consumer_span_has_the_documented_attributes(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        consume(Tracing(tracer_provider=provider), {}).end("completed")

        span = only(exporter, "process low")
        assert span.attributes == {
            "messaging.system": "asynq",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "low",
            "messaging.message.id": "id-1",
            "messaging.client.id": CLIENT_ID,
            "messaging.asynq.task.type": "email:deliver",
            "messaging.asynq.task.retried": 2,
            "messaging.asynq.task.max_retry": 25,
            "messaging.asynq.task.state_after": "completed",
        }
        assert span.status.status_code is StatusCode.UNSET

    def test_samplers_receive_the_attributes(self) -> None:
        seen: list[dict[str, Any]] = []

        class Watching(Sampler):
            def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
                seen.append(dict(kwargs.get("attributes") or args[4]))
                return SamplingResult(Decision.DROP)

            def get_description(self) -> str:
                return "watching"

        tracing = Tracing(tracer_provider=TracerProvider(sampler=Watching(), shutdown_on_exit=False))

        tracing.start_producer("low", "email:deliver", "id-1").end()
        consume(tracing, {}).end("completed")

        assert [facts["messaging.asynq.task.type"] for facts in seen] == ["email:deliver", "email:deliver"]
        assert seen[1]["messaging.asynq.task.retried"] == 2


class TestFailures:
    def test_a_failed_enqueue_marks_its_span_as_an_error(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        tracing = Tracing(tracer_provider=provider)

        with pytest.raises(ValueError, match="boom"), tracing.start_producer("low", "email:deliver", "id-1").current():
            raise ValueError("boom")

        span = only(exporter, "send low")
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "boom")
        assert (span.attributes or {})["error.type"] == "ValueError"
        (event,) = span.events
        facts = dict(event.attributes or {})
        assert (event.name, facts["exception.type"], facts["exception.message"]) == ("exception", "ValueError", "boom")
        assert "raise ValueError" in str(facts["exception.stacktrace"])

    def test_a_failed_task_marks_its_span_as_an_error(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        consume(Tracing(tracer_provider=provider), {}).end("retry", ConfigurationError("boom"))

        span = only(exporter, "process low")
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "taskq_core.errors.ConfigurationError"
        assert (span.attributes or {})["messaging.asynq.task.state_after"] == "retry"

    def test_a_failure_without_an_exception_marks_the_span_as_an_error(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        consume(Tracing(tracer_provider=provider), {}).end("active", error_type="lease_lost")

        span = only(exporter, "process low")
        assert (span.status.status_code, span.events) == (StatusCode.ERROR, ())
        assert (span.attributes or {})["error.type"] == "lease_lost"

    @pytest.mark.parametrize("steering", [Retry(after=1), Snooze(after=1), Discard()])
    def test_snooze_and_discard_do_not_mark_the_span_as_an_error(
        self, provider: TracerProvider, exporter: InMemorySpanExporter, steering: TaskControl
    ) -> None:
        consume(Tracing(tracer_provider=provider), {}).end("retry", steering)

        span = only(exporter, "process low")
        assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())

    def test_skip_retry_marks_the_span_as_an_error(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        consume(Tracing(tracer_provider=provider), {}).end("archived", SkipRetry("useless"))

        assert only(exporter, "process low").status.status_code is StatusCode.ERROR

    def test_messages_of_exceptions_and_their_causes_can_be_omitted(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        span = consume(Tracing(tracer_provider=provider, redaction=Redaction(False)), {})
        try:
            try:
                raise KeyError("hunter" + "2")
            except KeyError as cause:
                raise ValueError("hunter" + "2") from cause
        except ValueError as error:
            error.add_note("hunter" + "2")
            span.end("retry", error)

        ended = only(exporter, "process low")
        (event,) = ended.events
        assert (ended.attributes or {})["error.type"] == "ValueError"
        assert "test_spans.py" in str((event.attributes or {})["exception.stacktrace"])
        assert "hunter2" not in ended.to_json()

    def test_long_texts_are_truncated_and_unreadable_ones_are_replaced(
        self, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        class UnreadableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no")

        tracing = Tracing(tracer_provider=provider)

        consume(tracing, {}).end("retry", ValueError("x" * 1_000_000))
        consume(tracing, {}).end("retry", UnreadableError())

        long, unreadable = exporter.get_finished_spans()
        assert len(long.to_json()) < 30_000
        assert unreadable.status.description == "(its text cannot be read)"

    def test_ending_twice_keeps_the_first_outcome(
        self, provider: TracerProvider, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
    ) -> None:
        span = consume(Tracing(tracer_provider=provider), {})

        span.end("completed")
        span.end("retry", ValueError("late"))

        assert (only(exporter, "process low").attributes or {})["messaging.asynq.task.state_after"] == "completed"
        assert logged_here(caplog) == []


class TestContextOfTheTask:
    async def test_concurrent_tasks_on_one_loop_have_separate_spans(self, provider: TracerProvider) -> None:
        tracing = Tracing(tracer_provider=provider)
        both_in = asyncio.Barrier(2)

        async def run(user: str) -> tuple[object, bool]:
            span = consume(tracing, {**SAMPLED, "baggage": f"user={user}"})
            token = span.attach()
            try:
                await both_in.wait()
                return baggage.get_baggage("user"), trace.get_current_span() is span.span
            finally:
                context_api.detach(token)
                span.end("completed")

        answers = await asyncio.gather(run("1"), run("2"))

        assert answers == [("1", True), ("2", True)]
        assert context_api.get_current() == {}

    def test_the_span_is_current_in_the_thread_of_a_task(self, provider: TracerProvider) -> None:
        span = consume(Tracing(tracer_provider=provider), {**SAMPLED, "baggage": "user=7"})
        seen: list[object] = []

        def run() -> None:
            token = span.attach()
            seen.extend((baggage.get_baggage("user"), trace.get_current_span()))
            context_api.detach(token)
            seen.append(dict(context_api.get_current()))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

        assert seen == ["7", span.span, {}]

    def test_baggage_can_be_disabled_in_client_and_worker(self, provider: TracerProvider) -> None:
        tracing = Tracing(tracer_provider=provider, baggage=False)
        token = context_api.attach(baggage.set_baggage("user", "7", Context()))
        headers = enqueue(tracing)
        context_api.detach(token)

        span = consume(tracing, {**headers, "baggage": "user=7"})

        assert set(headers) == {"traceparent"}
        assert baggage.get_all(span.context) == {}

    def test_baggage_is_propagated_when_the_trace_is_only_linked(self, provider: TracerProvider) -> None:
        span = consume(Tracing(relation="link", tracer_provider=provider), {**SAMPLED, "baggage": "user=7"})

        assert baggage.get_all(span.context) == {"user": "7"}

    def test_an_unsampled_trace_is_propagated_and_records_nothing(self) -> None:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracing = Tracing(tracer_provider=provider)

        span = consume(tracing, UNSAMPLED)
        token = span.attach()
        headers = enqueue(tracing)
        context_api.detach(token)
        span.end("retry", ValueError("x"))

        assert headers["traceparent"].startswith(f"00-{TRACE_ID}-")
        assert headers["traceparent"].endswith("-00")
        assert exporter.get_finished_spans() == ()


@pytest.mark.usefixtures("clean_globals")
class TestWithoutAnSdk:
    def test_without_an_sdk_there_are_no_spans_and_no_headers(self) -> None:
        tracing = Tracing()

        headers = enqueue(tracing)
        span = consume(tracing, SAMPLED)
        span.end("retry", ValueError("x"))

        assert (tracing.is_active, headers, span.span) == (False, {}, None)

    def test_without_an_sdk_the_current_trace_is_propagated(self) -> None:
        """A process that has the API only hands on what its caller sent."""
        token = context_api.attach(extract({**SAMPLED, "baggage": "user=7"}))
        headers = enqueue(Tracing())
        context_api.detach(token)

        assert headers == {**SAMPLED, "baggage": "user=7"}

    def test_an_sdk_configured_later_is_noticed(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        tracing = Tracing()
        enqueue(tracing)

        trace.set_tracer_provider(provider)
        headers = enqueue(tracing)

        assert set(headers) == {"traceparent"}
        assert len(exporter.get_finished_spans()) == 1

    def test_a_no_op_provider_counts_as_none(self) -> None:
        trace.set_tracer_provider(NoOpTracerProvider())

        assert Tracing().is_active is False

    def test_a_disabled_sdk_counts_as_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

        assert Tracing(tracer_provider=TracerProvider(shutdown_on_exit=False)).is_active is False


@pytest.mark.usefixtures("clean_globals")
class TestOtherPropagators:
    @pytest.mark.parametrize("propagator", [B3MultiFormat(), B3SingleFormat()], ids=["multi", "single"])
    def test_b3_headers_are_written_and_read(
        self, propagator: TextMapPropagator, provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        propagate.set_global_textmap(propagator)
        tracing = Tracing(tracer_provider=provider)

        headers = enqueue(tracing)
        batch = tracing.start_batch("low")
        carried = batch.create("email:deliver", "id-2", 0)
        consume(tracing, headers).end("completed")

        send, process = only(exporter, "send low"), only(exporter, "process low")
        assert "traceparent" not in {**headers, **carried}
        assert any("b3" in name for name in headers)
        assert headers.keys() == carried.keys()
        assert process.parent is not None
        assert process.parent.span_id == send.context.span_id


class TestFaultsOfTheSdk:
    @pytest.mark.parametrize("fails_in", ["on_start", "on_end"])
    def test_a_failing_processor_loses_only_spans_and_is_logged_once(
        self, fails_in: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(SpanProcessor):
            pass

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("broken")

        setattr(Broken, fails_in, fail)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(Broken())
        tracing = Tracing(tracer_provider=provider)

        with caplog.at_level(logging.WARNING, "taskq_core"):
            enqueue(tracing)
            consume(tracing, {}).end("completed")

        assert [record.name for record in logged_here(caplog)] == ["taskq_core.telemetry.recording"]


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"relation": "child"}, "relation must be 'parent', 'link' or 'none', got 'child'"),
            (
                {"opt_in": "receive"},
                "opt_in must be a list with values from 'receive', 'settle', 'body_size', got 'receive'",
            ),
            ({"opt_in": ["send"]}, "each of opt_in must be 'receive', 'settle' or 'body_size', got 'send'"),
        ],
    )
    def test_invalid_options_are_refused(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Tracing(**settings)

        assert str(caught.value) == message


def test_spans_never_contain_a_payload(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """The calls take no payload, so only an exception could bring one in, and locals are not part of its stack."""

    def task(password: str) -> Sequence[str]:
        raise ValueError("refused")

    span = consume(Tracing(tracer_provider=provider), {})
    try:
        task("hunter" + "2")
    except ValueError as error:
        span.end("retry", error)

    assert "hunter2" not in only(exporter, "process low").to_json()
