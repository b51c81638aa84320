"""Fuzz the web dashboard, the JSON API and the admin with requests of the corpora and mutations of them."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.fuzz.corpora import corpus, run
from tests.model.fuzz.mutation import mutate
from tests.model.fuzz.pages import PAGE_TARGETS, admin_settings

IN_DJANGO = pytest.mark.django_db(databases="__all__")
TARGETS = [pytest.param(each, marks=[IN_DJANGO] if each == "admin" else []) for each in PAGE_TARGETS]


@pytest.fixture(autouse=True)
def ready(request: pytest.FixtureRequest) -> Iterator[None]:
    """Override the admin's settings in tests that use the database."""
    if request.node.get_closest_marker("django_db") is None:
        yield
        return
    with admin_settings():
        yield


def run_target(target: str, data: bytes) -> None:
    try:
        run(target, data)
    except Exception as error:
        raise AssertionError(f"{data!r}: {error!a}") from error


@pytest.mark.parametrize("target", TARGETS)
def test_requests_of_the_corpus(target: str) -> None:
    for file in corpus(target):
        run_target(target, file.read_bytes())


@pytest.mark.timeout(1800)  # for the nightly number of examples
@pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("target", TARGETS)
def test_mutations_of_the_corpus(target: str, examples: int) -> None:
    pool = [file.read_bytes() for file in corpus(target)]

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.sampled_from(pool), draw=st.randoms(use_true_random=False))
    def explore(data: bytes, draw: random.Random) -> None:
        run_target(target, mutate(data, pool, draw))

    explore()


@IN_DJANGO
def test_filters_cannot_search_hidden_fields_of_the_outbox(client: Client, admin_user: Any) -> None:
    client.force_login(admin_user)
    for lookup in ["message__gt=a", "message=a", "unique_key__startswith=x", "claim__isnull=1"]:
        answer = client.get(f"/admin/taskq_django/outboxtask/?{lookup}")

        assert answer.status_code == 400, (lookup, answer.status_code)


@IN_DJANGO
def test_allowed_filters_of_periodic_tasks_work(client: Client, admin_user: Any) -> None:
    client.force_login(admin_user)
    for lookup in ["enabled__exact=1", "task=x", "task__in=x,y", "source=code", "id__exact=1", "q=x"]:
        answer = client.get(f"/admin/taskq_django/periodictask/?{lookup}")

        assert answer.status_code == 200, (lookup, answer.status_code)
