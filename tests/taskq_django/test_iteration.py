"""Test querysets in `context.iterate`: each row comes once, in key order, while the table changes."""

# ruff: noqa: PERF401 - loops are what is tested

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections, models
from django.test.utils import CaptureQueriesContext

from taskq_core import IterationError, TaskContext
from taskq_core.execution.sources import source_of
from taskq_core.testing import Captured, capture, interrupt_after
from taskq_django import task, taskq
from taskq_django.iteration import CHUNK
from tests.rows import rows
from tests.taskq_django.depot.models import Country, FragileParcel, HeavyParcel, Parcel, Place, Receipt, Shelf

pytestmark = pytest.mark.django_db


@pytest.fixture
def tasks(redis: Any) -> Iterator[Captured]:
    with capture(taskq) as tasks:
        yield tasks


@pytest.fixture
def forget() -> Iterator[None]:
    """Forget the tasks of a test."""
    before = dict(taskq._tasks)
    yield
    taskq._tasks.clear()
    taskq._tasks.update(before)


def parcels(count: int) -> list[Parcel]:
    return [Parcel.objects.create(to=f"to {number}") for number in range(count)]


def make_parcels() -> "models.QuerySet[Any]":
    parcels(5)
    return Parcel.objects.all()


def make_fragile() -> "models.QuerySet[Any]":
    parcels(2)
    for number in range(5):
        FragileParcel.objects.create(to=str(number))
    return FragileParcel.objects.all()


def make_proxies() -> "models.QuerySet[Any]":
    parcels(5)
    return HeavyParcel.objects.all()


def make_uuids() -> "models.QuerySet[Any]":
    for _ in range(5):
        Shelf.objects.create()
    return Shelf.objects.all()


def make_composites() -> "models.QuerySet[Any]":
    for _ in range(2):
        shelf = Shelf.objects.create()
        for number in (3, 1, 2):
            Place.objects.create(shelf=shelf, number=number)
    return Place.objects.all()


def make_foreign_keys() -> "models.QuerySet[Any]":
    for parcel in parcels(5):
        Receipt.objects.create(parcel=parcel)
    return Receipt.objects.all()


def make_texts() -> "models.QuerySet[Any]":
    for code in ("ch", "de", "at", "é", "Z"):
        Country.objects.create(code=code)
    return Country.objects.all()


@pytest.mark.parametrize(
    "make",
    [make_parcels, make_fragile, make_proxies, make_uuids, make_composites, make_foreign_keys, make_texts],
)
def test_iteration_resumes_anywhere_with_every_type_of_key(make: Callable[[], "models.QuerySet[Any]"]) -> None:
    found = make()
    expected = list(found.order_by("pk"))
    for chunk in (1, 2, 100):
        source = source_of(found, batch_size=chunk)

        pairs = list(source.pairs(None))

        assert [row for row, _ in pairs] == expected, chunk
        for index, (_, cursor) in enumerate(pairs):
            assert [row for row, _ in source.pairs(cursor)] == expected[index + 1 :], (chunk, index)


def test_filters_and_annotations_of_the_queryset_are_kept() -> None:
    made = parcels(6)
    Receipt.objects.bulk_create([Receipt(parcel=parcel) for parcel in made])
    rows = (
        Receipt.objects.filter(parcel__to__in=["to 1", "to 2", "to 5"])
        .select_related("parcel")
        .annotate(name=models.F("parcel__to"))
        .only("parcel__to")
    )

    pairs = list(source_of(rows, batch_size=2).pairs(None))

    with CaptureQueriesContext(connections["default"]) as queries:
        assert [(row.name, row.parcel.to) for row, _ in pairs] == [(f"to {n}", f"to {n}") for n in (1, 2, 5)]
    assert not len(queries), "select_related was kept"


def test_a_row_that_a_join_repeats_is_yielded_once() -> None:
    shelves = [Shelf.objects.create() for _ in range(3)]
    for shelf in shelves:
        for number in range(4):
            Place.objects.create(shelf=shelf, number=number)
    rows = Shelf.objects.filter(place__number__gte=1)
    assert rows.count() == 9

    for chunk in (1, 2, 4, 100):
        found = [row for row, _ in source_of(rows, batch_size=chunk).pairs(None)]

        assert sorted(found, key=str) == sorted(shelves, key=str)


def test_rows_are_read_in_chunks_and_no_query_is_held_open() -> None:
    Parcel.objects.bulk_create([Parcel(to=str(number)) for number in range(2 * CHUNK + 1)])

    with CaptureQueriesContext(connections["default"]) as queries:
        found = list(source_of(Parcel.objects.all()).pairs(None))

    assert len(found) == 2 * CHUNK + 1
    assert len(queries) == 3


@pytest.mark.django_db(transaction=True)
def test_created_and_deleted_rows_do_not_shift_the_iteration(tasks: Captured, forget: None) -> None:
    """A deleted row is omitted, a new row with a later key is read, and no other row is skipped."""
    made = parcels(8)
    seen: list[str] = []

    @task(name="go")
    def go(context: TaskContext) -> None:
        for batch in context.iterate(Parcel.objects.all(), batch_size=2):
            seen.extend(parcel.to for parcel in batch)
            if len(seen) == 4:
                made[0].delete()
                made[3].delete()
                made[5].delete()
                Parcel.objects.create(to="late")

    go.delay()
    with interrupt_after(1):
        tasks.run()

    assert seen == ["to 0", "to 1", "to 2", "to 3", "to 4", "to 6", "to 7", "late"]


@pytest.mark.django_db(transaction=True)
def test_a_task_resumes_with_its_next_row(tasks: Captured, forget: None) -> None:
    parcels(7)
    seen: list[str] = []

    @task(name="go")
    def go(context: TaskContext) -> None:
        for parcel in context.iterate(Parcel.objects):
            seen.append(parcel.to)

    go.delay()
    with interrupt_after(2) as stops:
        tasks.run()

    assert seen == [f"to {number}" for number in range(7)]
    assert stops.count == 3


@pytest.mark.django_db(transaction=True)
async def test_a_coroutine_reads_its_rows_without_blocking_the_event_loop(redis: Any, forget: None) -> None:
    for number in range(5):
        await Parcel.objects.acreate(to=f"to {number}")
    seen: list[str] = []

    @task(name="go")
    async def go(context: TaskContext) -> None:
        async for parcel in context.iterate(Parcel.objects.all(), every=1):
            seen.append(parcel.to)

    with capture(taskq) as tasks, interrupt_after(2):
        await go.adelay()
        await tasks.arun()

    assert seen == [f"to {number}" for number in range(5)]


@pytest.mark.django_db(databases=["default", "other"])
def test_the_database_of_the_queryset_is_kept() -> None:
    Parcel.objects.create(to="here")
    for number in range(3):
        Parcel.objects.using("other").create(to=f"there {number}")

    found = [row for row, _ in source_of(Parcel.objects.using("other"), batch_size=2).pairs(None)]

    assert [(row.to, row._state.db) for row in found] == [(f"there {number}", "other") for number in range(3)]


@pytest.mark.parametrize("rows", [lambda: Parcel.objects.order_by("pk"), lambda: Parcel.objects.order_by("id")])
def test_an_order_by_primary_key_is_accepted(rows: Callable[[], Any]) -> None:
    made = parcels(3)

    assert [row for row, _ in source_of(rows(), batch_size=1).pairs(None)] == made


@rows(
    ("rows", "expected_error"),
    [
        (lambda: Parcel.objects.all()[:5], "a queryset of depot.Parcel is sliced"),
        (lambda: Parcel.objects.order_by("to"), "is ordered by 'to', but iterate.. orders by primary key"),
        (lambda: Parcel.objects.order_by("-pk"), "is ordered by '-pk'"),
        (lambda: Parcel.objects.order_by("pk", "to"), "is ordered by 'pk', 'to'"),
        (lambda: Parcel.objects.order_by("?"), "is ordered by '.'"),
        (lambda: Parcel.objects.order_by(models.F("to").desc()), "is ordered by OrderBy"),
        (lambda: Parcel.objects.values("to"), "returns values.. instead of instances"),
        (lambda: Parcel.objects.values_list("to", flat=True), "returns values.. instead of instances"),
        (lambda: Parcel.objects.distinct("to"), "has distinct.'to'., which needs another order"),
        (lambda: Parcel.objects.all().union(Parcel.objects.all()), "made by union.. cannot be filtered further"),
        (lambda: Parcel.objects.raw("SELECT * FROM depot_parcel"), "a RawQuerySet in another run"),
        (lambda: Parcel.objects.first, "a method in another run"),
        (lambda: Parcel, "a ModelBase in another run"),
    ],
)
def test_querysets_that_cannot_be_read_by_key_are_refused(rows: Callable[[], Any], expected_error: str) -> None:
    with pytest.raises(IterationError, match=expected_error):
        source_of(rows())


@rows("cursor", ["x", 1.5, [1], {"a": 1}, True])
def test_an_invalid_cursor_is_refused(cursor: object) -> None:
    with pytest.raises(
        IterationError, match=r"the stored cursor of this iteration is not a primary key of depot\.Parcel"
    ):
        list(source_of(Parcel.objects.all()).pairs(cursor))


def test_a_cursor_of_another_type_of_key_is_refused() -> None:
    with pytest.raises(IterationError, match=r"not a primary key of depot\.Place"):
        list(source_of(Place.objects.all()).pairs(str(uuid.uuid4())))
