"""Requests of every kind, and some changes of them: the answer is one that was meant, whatever they hold."""

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
    """Settings for the admin, where a test has its databases."""
    if request.node.get_closest_marker("django_db") is None:
        yield
        return
    with admin_settings():
        yield


def at(target: str, data: bytes) -> None:
    try:
        run(target, data)
    except Exception as error:
        raise AssertionError(f"{data!r}: {error!a}") from error


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_in_the_corpus(target: str) -> None:
    for file in corpus(target):
        at(target, file.read_bytes())


@pytest.mark.timeout(1800)  # at night
@pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_like_it(target: str, examples: int) -> None:
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
        at(target, mutate(data, pool, draw))

    explore()


@IN_DJANGO
def test_what_the_outbox_does_not_show_cannot_be_guessed(client: Client, admin_user: Any) -> None:
    client.force_login(admin_user)
    for lookup in ["message__gt=a", "message=a", "unique_key__startswith=x", "claim__isnull=1"]:
        answer = client.get(f"/admin/taskq_django/outboxtask/?{lookup}")

        assert answer.status_code == 400, (lookup, answer.status_code)


@IN_DJANGO
def test_what_filters_ask_for_is_answered(client: Client, admin_user: Any) -> None:
    client.force_login(admin_user)
    for lookup in ["enabled__exact=1", "task=x", "task__in=x,y", "source=code", "id__exact=1", "q=x"]:
        answer = client.get(f"/admin/taskq_django/periodictask/?{lookup}")

        assert answer.status_code == 200, (lookup, answer.status_code)
