"""Test parameters annotated with a model: the primary key is stored, and the task receives a fresh instance."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_init
from django.test.utils import CaptureQueriesContext
from django.utils.safestring import mark_safe

from taskq_core import (
    ConfigurationError,
    Discard,
    MissingReferenceError,
    PayloadError,
    TaskArgumentsError,
    TaskDefinitionError,
    TaskFailedError,
    TaskQ,
    TaskState,
)
from taskq_core.cli.explain import find_explanation
from taskq_core.inspector import Inspector
from taskq_core.testing import Captured
from taskq_core.testing import capture as core_capture
from taskq_django import async_client, periodic, task, taskq
from taskq_django.app import DjangoTaskQ
from taskq_django.testing import adrain, capture, drain, eager
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.depot.models import Country, FragileParcel, HeavyParcel, Parcel, Place, Receipt, Shelf, Stamped

pytestmark = pytest.mark.django_db(transaction=True)
arrived: list[Any] = []


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    arrived.clear()
    yield
    taskq.close()


@task(name="depot:send", retention=60)
def send(parcel: Parcel, note: str = "") -> str:
    arrived.append(parcel)
    return f"{type(parcel).__name__} to {parcel.to}"


@task(name="depot:asend", retention=60)
async def asend(parcel: Parcel) -> str:
    arrived.append(parcel)
    return parcel.to


@task(name="depot:send-all", retention=60)
def send_all(first: Parcel | None, others: list[Parcel], by_name: dict[str, Parcel] | None = None) -> None:
    arrived.extend([first, *others, by_name])


@task(name="depot:store", retention=60)
def store(shelf: Shelf, place: Place, receipt: Receipt, country: Country) -> None:
    arrived.extend([shelf, place, receipt, country])


@task(name="depot:check", retention=60)
def check(fragile: FragileParcel, heavy: Annotated[HeavyParcel, "at most 30 kg"]) -> None:
    arrived.extend([fragile, heavy])


@task(name="depot:tidy", on_missing="discard", retention=60)
def tidy(parcel: Parcel) -> None:
    arrived.append(parcel)


def payload_of(tasks: Captured) -> Any:
    return json.loads(tasks.enqueued[-1].payload)


class TestInAWorker:
    """Use a real Redis and a real worker with its own threads and connections."""

    @pytest.mark.redis
    def test_a_plain_task_receives_the_current_row(self, redis: RedisServer) -> None:
        parcel = Parcel.objects.create(to="Ada")
        handle = send.delay(parcel, note="soon")
        Parcel.objects.filter(pk=parcel.pk).update(to="Grace")

        drain()

        assert handle.result(timeout=60) == "Parcel to Grace"
        assert arrived[0] == parcel
        assert arrived[0] is not parcel

    @pytest.mark.redis
    async def test_a_coroutine_receives_the_row_without_blocking_the_event_loop(self, redis: RedisServer) -> None:
        """Another thread reads the row, and the event loop continues in that time."""
        parcel = await Parcel.objects.acreate(to="Ada")
        loop = asyncio.get_running_loop()

        def meet(**kwargs: Any) -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)

        handle = await asend.adelay(parcel)
        post_init.connect(meet, sender=Parcel)
        try:
            await adrain()
        finally:
            post_init.disconnect(meet, sender=Parcel)

        assert await handle.aresult(timeout=60) == "Ada"

    @pytest.mark.redis
    def test_a_deleted_row_archives_the_task_at_once(self, redis: RedisServer, inspector: Inspector) -> None:
        parcel = Parcel.objects.create(to="Ada")
        key = parcel.pk
        handle = send.delay(parcel)
        parcel.delete()

        runs = drain(raises=False)

        assert [(run.outcome, type(run.error)) for run in runs] == [("archived", MissingReferenceError)]
        error = runs[0].error
        assert isinstance(error, MissingReferenceError)
        assert (error.task, error.label, error.keys) == ("depot:send", "depot.Parcel", (key,))
        info = handle.refresh()
        assert (info.state, info.retried) == (TaskState.ARCHIVED, 0)
        with pytest.raises(TaskFailedError, match=f"MissingReferenceError: no depot.Parcel with primary key {key}, to"):
            handle.result(timeout=60)
        assert arrived == []

    @pytest.mark.redis
    def test_a_deleted_row_discards_the_task_if_its_option_says_so(self, redis: RedisServer) -> None:
        parcel = Parcel.objects.create(to="Ada")
        tidy.delay(parcel)
        parcel.delete()

        (run,) = drain()

        assert run.outcome == "discarded"
        assert isinstance(run.error, Discard)
        assert isinstance(run.error.__cause__, MissingReferenceError)
        assert redis.client.zcard("asynq:{default}:archived") == 0

    @pytest.mark.redis
    def test_a_deleted_row_discards_the_task_if_the_setting_says_so(self, redis: RedisServer, settings: Any) -> None:
        settings.TASKQ = {**settings.TASKQ, "DEFAULTS": {"on_missing": "discard"}}
        parcel = Parcel.objects.create(to="Ada")
        send.delay(parcel)
        parcel.delete()

        assert [run.outcome for run in drain()] == ["discarded"]

    @pytest.mark.redis
    def test_a_database_error_is_retried_and_not_treated_as_a_missing_row(
        self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error may be temporary, so the task is retried."""
        handle = send.delay(Parcel.objects.create(to="Ada"))
        monkeypatch.setattr(Parcel._meta, "db_table", "nowhere")

        runs = drain(raises=False)

        assert [run.outcome for run in runs] == ["retried"]
        assert handle.refresh().state is TaskState.RETRY

    @pytest.mark.redis
    def test_connections_that_load_rows_are_managed(self, redis: RedisServer) -> None:
        """If connections must not persist (`CONN_MAX_AGE` 0), the connection for the row is closed with the task."""
        used: list[Any] = []

        def note(**kwargs: Any) -> None:
            used.append(connection.connection)

        parcel = Parcel.objects.create(to="Ada")
        send.delay(parcel)
        post_init.connect(note, sender=Parcel)
        try:
            drain()
        finally:
            post_init.disconnect(note, sender=Parcel)

        (raw,) = used
        with pytest.raises(Exception, match="closed"):
            raw.execute("SELECT 1")

    @pytest.mark.redis
    def test_keys_written_by_another_program_are_loaded(self, redis: RedisServer) -> None:
        """The payload holds a bare primary key, like the struct of a Go program."""
        parcel = Parcel.objects.create(to="Ada")
        taskq.remote("depot:send").delay(b'{"parcel": %d}' % parcel.pk)

        drain()

        assert arrived == [parcel]


class TestThePayload:
    def test_the_payload_holds_only_primary_keys(self) -> None:
        shelf = Shelf.objects.create()
        place = Place.objects.create(shelf=shelf, number=7)
        parcel = Parcel.objects.create(to="Ada")
        receipt = Receipt.objects.create(parcel=parcel)
        country = Country.objects.create(code=mark_safe("DE"))

        with capture() as tasks:
            store.delay(shelf, place, receipt, country)
            assert payload_of(tasks) == {
                "shelf": str(shelf.pk),
                "place": [str(shelf.pk), 7],
                "receipt": parcel.pk,
                "country": "DE",
            }
            tasks.run()

        assert arrived == [shelf, place, receipt, country]

    def test_none_lists_and_dicts_of_rows_are_loaded(self) -> None:
        """One query reads each row of a model once, and each parameter receives its rows."""
        a, b = Parcel.objects.create(to="a"), Parcel.objects.create(to="b")

        with capture() as tasks:
            send_all.delay(None, [b, a, b], {"x": a})
            assert payload_of(tasks) == {"first": None, "others": [b.pk, a.pk, b.pk], "by_name": {"x": a.pk}}
            with CaptureQueriesContext(connection) as queries:
                tasks.run()

        assert arrived == [None, b, a, b, {"x": a}]
        assert len(queries) == 1

    def test_many_rows_are_loaded_with_several_statements(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(connection.features), "max_query_params", 2)
        parcels = [Parcel.objects.create(to=str(number)) for number in range(5)]

        with eager():
            send_all.delay(None, parcels)

        assert arrived[1:-1] == parcels

    def test_instances_of_children_and_proxies_have_the_annotated_class(self) -> None:
        fragile = FragileParcel.objects.create(to="Ada")
        with eager():
            assert send.delay(fragile).result(timeout=60) == "Parcel to Ada"
            assert send.delay(HeavyParcel.objects.get()).result(timeout=60) == "Parcel to Ada"
            check.delay(fragile, Parcel.objects.get())

        assert [type(each) for each in arrived[2:]] == [FragileParcel, HeavyParcel]

    def test_rows_that_the_default_manager_hides_are_found(self) -> None:
        parcel = Parcel.objects.create(to="Ada", is_lost=True)

        with eager():
            send.delay(parcel)

        assert arrived == [parcel]

    def test_a_set_of_rows_is_stored_in_a_stable_order(self) -> None:
        """Equal calls must have equal payloads, because the unique lock compares them."""
        shelves = {Shelf.objects.create() for _ in range(20)}

        @task(name="depot:count")
        def count(shelves: set[Shelf], fixed: tuple[Shelf, int] | None = None) -> None:
            arrived.append((shelves, fixed))

        first = next(iter(shelves))
        with capture() as tasks:
            count.delay(shelves, (first, 3))
            keys = sorted(str(each.pk) for each in shelves)
            assert payload_of(tasks) == {"shelves": keys, "fixed": [str(first.pk), 3]}
            tasks.run()

        assert arrived == [(shelves, (first, 3))]

    def test_a_duplicate_is_recognized_by_the_primary_key(self) -> None:
        parcel = Parcel.objects.create(to="Ada")
        once = send.using(unique_for=60)

        with capture():
            once.delay(parcel)
            parcel.to = "Grace"
            with pytest.raises(Exception, match="holds the unique lock"):
                once.delay(parcel)

    def test_a_primary_key_is_accepted_instead_of_an_instance(self) -> None:
        """The caller then does not have to read the row."""
        shelf = Shelf.objects.create()
        Place.objects.create(shelf=shelf, number=7)
        parcel = Parcel.objects.create(to="Ada")
        Receipt.objects.create(parcel=parcel)
        Country.objects.create(code="DE")

        with capture() as tasks:
            store.delay(str(shelf.pk), (shelf.pk, 7), parcel.pk, "DE")  # type: ignore[arg-type]  # keys
            tasks.run()
            tasks.assert_enqueued(store, shelf=shelf, receipt=parcel.pk)
            tasks.assert_enqueued(store.s(shelf, Place.objects.get(), Receipt.objects.get(), Country.objects.get()))

        assert arrived == [shelf, Place.objects.get(), Receipt.objects.get(), Country.objects.get()]

    async def test_adelay_and_enqueue_many_store_primary_keys(self) -> None:
        parcel = await Parcel.objects.acreate(to="Ada")

        with capture() as tasks:
            await send.adelay(parcel)
            await async_client.enqueue_many([send.s(parcel), asend.s(parcel)])
            await tasks.arun()

        assert arrived == [parcel] * 3

    def test_a_direct_call_receives_the_given_instance(self) -> None:
        parcel = Parcel(to="Ada")

        assert send(parcel) == "Parcel to Ada"
        assert arrived[0] is parcel


class TestSchedules:
    def test_a_schedule_setting_names_a_primary_key(self, settings: Any) -> None:
        settings.TASKQ = {
            "SCHEDULE": {"nightly": {"task": "depot:send", "spec": "@daily", "kwargs": {"parcel": 7}}},
            "URL": "redis://127.0.0.1:1/0",
        }

        (entry,) = [each for each in taskq.periodic_tasks() if each.id == "nightly"]

        assert entry.payload == b'{"parcel":7}'

    def test_an_invalid_key_in_the_schedule_is_refused(self, settings: Any) -> None:
        settings.TASKQ = {"SCHEDULE": {"nightly": {"task": "depot:send", "spec": "@daily", "kwargs": {"parcel": "x"}}}}

        with pytest.raises(TaskArgumentsError, match=r"expected the primary key of a depot\.Parcel, got str"):
            taskq.periodic_tasks()

    def test_an_optional_model_argument_can_be_omitted(self) -> None:
        application = DjangoTaskQ()

        @application.periodic("@daily")
        @application.task(name="depot:sweep")
        def sweep(parcel: Parcel | None = None) -> None: ...

        (entry,) = application.timetable.entries.values()
        assert entry.payload == b"{}"
        assert periodic is not None


def deleted_parcel() -> Parcel:
    parcel = Parcel.objects.create(to="Ada")
    parcel.delete()
    return parcel


class TestRefusals:
    """Refusals happen before anything is enqueued. Errors contain types and names, but no values."""

    @pytest.fixture(autouse=True)
    def _captured(self) -> Iterator[None]:
        with capture() as tasks:
            yield
            assert tasks.enqueued == []

    def test_an_unsaved_instance_is_refused(self) -> None:
        with pytest.raises(TaskArgumentsError) as caught:
            send.delay(Parcel(to="Ada"))

        assert str(caught.value) == (
            "task 'depot:send', parameter 'parcel': this depot.Parcel has no row: save it first, or enqueue before you "
            "delete it (position 1)"
        )
        with pytest.raises(TaskArgumentsError, match=r"this depot\.Parcel has no row: .* at \[1\]"):
            send_all.delay(None, [Parcel.objects.create(to="a"), Parcel(to="b")])

    @rows(
        ("make", "expected"),
        [
            (lambda: send.encode((deleted_parcel(),), {}), r"this depot\.Parcel has no row"),
            (lambda: store.encode((Shelf(), 1, 1, "DE"), {}), r"this depot\.Shelf has no row"),
            (lambda: send.encode((Country.objects.create(code="DE"),), {}), r"a depot\.Parcel, got a depot\.Country"),
            (lambda: check.encode((Parcel.objects.create(),) * 2, {}), r"a depot\.FragileParcel, got a depot\.Parcel"),
            (lambda: send_all.encode((None, Parcel.objects.all()), {}), r"expected list\[Parcel\], got QuerySet"),
            *(
                (partial(send_all.encode, (None, value), {}), r"parameter 'others': expected list\[Parcel\], got")
                for value in (None, 7, "7", {"a": 1})
            ),
            *(
                (partial(store.encode, (str(uuid.UUID(int=1)), place, 7, "DE"), {}), "parameter 'place': expected")
                for place in (7, [7], (None, 1), "x", [uuid.UUID(int=1), "x"])
            ),
        ],
    )
    def test_what_is_no_stored_row_of_the_annotated_model_is_refused(
        self, make: Callable[[], bytes], expected: str
    ) -> None:
        with pytest.raises(TaskArgumentsError, match=expected):
            make()

    @rows("value", [None, "x", "79", 7.0, True, [7], {"id": 7}, uuid.uuid4(), object(), 2j])
    def test_a_value_that_is_neither_instance_nor_key_is_refused(self, value: Any) -> None:
        with pytest.raises(TaskArgumentsError) as caught:
            send.delay(value)

        assert caught.value.parameter == "parcel"
        assert value is None or repr(value) not in str(caught.value)
        assert caught.value.__context__ is None

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_a_row_of_a_database_that_the_run_does_not_read_is_refused(self, settings: Any) -> None:
        """With a router that names one database for the model, an instance of a replica is accepted."""
        parcel = Parcel.objects.using("other").create(to="Ada")
        with pytest.raises(TaskArgumentsError, match="is in database 'other', but a run would read it from 'default'"):
            send.delay(parcel)

        settings.DATABASE_ROUTERS = [WritesToOther()]
        assert send.encode((parcel,), {}) == b'{"parcel":%d}' % parcel.pk
        assert send.codec.keys_to_load(send.codec.decode_counting(b'{"parcel":%d}' % parcel.pk)[0])
        (rows,) = taskq.references.fetch(
            send.codec.keys_to_load(send.codec.decode_counting(b'{"parcel":%d}' % parcel.pk)[0])
        ).values()
        assert rows == {parcel.pk: parcel}

    @rows("payload", [b'{"parcel":"7"}', b'{"parcel":null}', b'{"parcel":7.5}', b'{"parcel":[7]}'])
    def test_a_payload_without_a_key_is_refused(self, payload: bytes) -> None:
        with pytest.raises(
            PayloadError, match="parameter 'parcel' of task 'depot:send': expected the primary key of a"
        ):
            send.codec.decode(payload)


class WritesToOther:
    def db_for_write(self, model: type, **hints: object) -> str | None:
        return "other" if model is Parcel else None


class TestDefinitions:
    @rows(
        ("application", "annotation", "expected"),
        [
            (DjangoTaskQ, Stamped, "parameter 'what': Stamped is abstract and has no rows"),
            (DjangoTaskQ, Parcel | int, r"parameter 'what': the annotation Parcel \| int is not supported"),
            (DjangoTaskQ, dict[Parcel, int], "type Parcel has no JSON form"),
            (TaskQ, Parcel, "type Parcel has no JSON form"),
        ],
    )
    def test_an_annotation_that_is_no_reference_to_a_row_is_refused(
        self, application: type[TaskQ], annotation: Any, expected: str
    ) -> None:
        def stamp(what: Any) -> None: ...

        stamp.__annotations__["what"] = annotation

        with pytest.raises(TaskDefinitionError, match=expected):
            application().task(stamp)

    def test_an_unknown_on_missing_value_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="on_missing must be 'fail' or 'discard', got 'retry'"):
            task(name="depot:bad", on_missing="retry")(send.function)


class TestEager:
    def test_an_eager_task_loads_the_uncommitted_row(self, settings: Any) -> None:
        settings.TASKQ = {"EAGER": True, "ENQUEUE": "immediate"}
        with transaction.atomic():
            parcel = Parcel.objects.create(to="Ada")
            parcel.to = "not saved"
            assert send.delay(parcel).result(timeout=60) == "Parcel to Ada"
            assert asend.delay(parcel).result(timeout=60) == "Ada"


@rows("annotation", [Any, int, str | None])
def test_an_instance_for_a_parameter_without_a_model_annotation_is_refused_with_a_hint(
    annotation: Any,
) -> None:
    def pack(parcel):  # type: ignore[no-untyped-def] # the model annotation is missing on purpose
        arrived.append(parcel)

    if annotation is not Any:
        pack.__annotations__["parcel"] = annotation
    app = DjangoTaskQ()
    wrong = app.task(name="depot:pack")(pack)

    with core_capture(app) as captured, pytest.raises(TaskArgumentsError, match=r"parcel.*Parcel") as caught:
        wrong.delay(Parcel(to="Oslo"))

    assert list(captured.enqueued) == []
    explanation = find_explanation(caught.value.code)
    assert explanation is not None
    assert "a model instance" in explanation.cause
