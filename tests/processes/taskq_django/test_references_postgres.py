"""Test model instances with every kind of primary key as arguments, on PostgreSQL."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections

from taskq_django.testing import eager
from tests.postgres_server import PostgresServer
from tests.taskq_django.depot.models import Country, FragileParcel, Parcel, Place, Receipt, Shelf
from tests.taskq_django.test_references import arrived, check, send_all, store


class WritesToPostgres:
    def db_for_write(self, model: Any, **hints: object) -> str | None:
        return "postgres" if model._meta.app_label == "depot" else None

    db_for_read = db_for_write


@pytest.fixture
def postgres(settings: Any, django_db_blocker: Any, postgres_server: PostgresServer) -> Iterator[None]:
    """A PostgreSQL database with the tables of all models in this test."""
    with django_db_blocker.unblock():
        configured = connections.configure_settings({"default": {}, "postgres": postgres_server.create("depot")})
        connections.settings["postgres"] = configured["postgres"]
        settings.DATABASE_ROUTERS = [WritesToPostgres()]
        try:
            with connections["postgres"].schema_editor() as editor:
                for model in (Parcel, FragileParcel, Shelf, Place, Receipt, Country):
                    editor.create_model(model)
            yield
        finally:
            connections["postgres"].close()
            del connections["postgres"]
            del connections.settings["postgres"]


def test_every_kind_of_key(postgres: None) -> None:
    shelf = Shelf.objects.create()
    places = [Place.objects.create(shelf=shelf, number=number) for number in range(3)]
    parcels = [Parcel.objects.create(to=str(number)) for number in range(3)]
    receipt = Receipt.objects.create(parcel=parcels[0])
    country = Country.objects.create(code="DE")
    fragile = FragileParcel.objects.create(to="Ada")
    arrived.clear()

    with eager():
        store.delay(shelf, places[1], receipt, country)
        send_all.delay(None, [*reversed(parcels), parcels[0]])
        check.delay(fragile, parcels[0])  # type: ignore[arg-type]  # a proxy accepts instances of its concrete model

    assert arrived == [
        *(shelf, places[1], receipt, country),
        *(None, *reversed(parcels), parcels[0], None),
        *(fragile, parcels[0]),
    ]
    assert {each._state.db for each in arrived if each is not None} == {"postgres"}
