"""One `broker` for every store and runner, each started once a test process."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conformance.stores import RUNNERS, STORES, Broker, Run, Store, redis_programs


class _Opened:
    """Stores and runners that are open, by name. Started at the first use."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._stores: dict[str, Store] = {}
        self._runs: dict[tuple[str, str], Run] = {}

    def store(self, name: str) -> Store:
        if name not in self._stores:
            self._stores[name] = self._stack.enter_context(STORES[name]())
        return self._stores[name]

    def run(self, store: str, runner: str) -> Run:
        key = (store, runner)
        if key not in self._runs:
            self._runs[key] = self._stack.enter_context(dict(RUNNERS)[runner](self.store(store)))
        return self._runs[key]


@pytest.fixture(autouse=True)
def not_in_a_hurry(unhurried: None) -> None: ...


@pytest.fixture(scope="session")
def opened() -> Iterator[_Opened]:
    with ExitStack() as stack:
        yield _Opened(stack)


def _marks(store: str) -> list[pytest.MarkDecorator]:
    return [] if store == "fakeredis" else [pytest.mark.redis]


@pytest.fixture(
    params=[
        pytest.param((store, runner), id=f"{store}-{runner}", marks=_marks(store))
        for store in STORES
        for runner, _ in RUNNERS
    ]
)
def broker(opened: _Opened, request: pytest.FixtureRequest) -> Broker:
    """An empty store behind each runner in turn."""
    store, runner = request.param
    opened.store(store).flush()
    return Broker(opened.store(store), opened.run(store, runner))


@pytest.fixture(params=[pytest.param(store, id=store, marks=_marks(store)) for store in STORES])
def any_broker(opened: _Opened, request: pytest.FixtureRequest) -> Broker:
    """An empty store behind the blocking runner, for what no runner can change."""
    opened.store(request.param).flush()
    return Broker(opened.store(request.param), opened.run(request.param, "sync"))


@pytest.fixture(params=[pytest.param(store, id=store, marks=_marks(store)) for store in STORES if store != "cluster"])
def one_server(opened: _Opened, request: pytest.FixtureRequest) -> Any:
    """As `any_broker`, without the cluster, where names of several queues share one server."""
    opened.store(request.param).flush()
    return Broker(opened.store(request.param), opened.run(request.param, "sync"))


@pytest.fixture(params=[pytest.param(store, id=store, marks=pytest.mark.redis) for store in redis_programs()])
def real_server(opened: _Opened, request: pytest.FixtureRequest) -> Broker:
    """An empty real server of each program, behind the blocking runner."""
    opened.store(request.param).flush()
    return Broker(opened.store(request.param), opened.run(request.param, "sync"))
