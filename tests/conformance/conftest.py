"""One `broker` for each store of the run, started once a test process.

`make test` takes the Redis that comes with the tests; `--stores others` takes every other server on this machine and a
cluster.
Which runner sends an operation makes no difference to a script: `tests/taskq_core/broker` tests both.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conformance.stores import Broker, Run, Store, blocking, bundled, stores


class _Opened:
    """Stores that are open, by name. Started at the first use."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._stores: dict[str, tuple[Store, Run]] = {}

    def broker(self, name: str) -> Broker:
        if name not in self._stores:
            store = self._stack.enter_context(stores()[name]())
            self._stores[name] = store, self._stack.enter_context(blocking(store))
        store, run = self._stores[name]
        store.flush()
        return Broker(store, run)


@pytest.fixture(autouse=True)
def uses_long_connect_timeout(long_connect_timeout: None) -> None: ...


@pytest.fixture(scope="session")
def opened() -> Iterator[_Opened]:
    with ExitStack() as stack:
        yield _Opened(stack)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.getoption("--stores")
    names = [name for name in stores() if chosen in ("all", "bundled" if name == bundled() else "others")]
    servers = [name for name in names if name != "cluster"]
    for fixture, params in (("broker", names), ("one_server", servers)):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, params, indirect=True)


@pytest.fixture
def broker(opened: _Opened, request: pytest.FixtureRequest) -> Broker:
    """An empty store behind the blocking runner."""
    return opened.broker(request.param)


@pytest.fixture
def one_server(opened: _Opened, request: pytest.FixtureRequest) -> Broker:
    """As `broker`, and never a cluster: names of several queues share one server."""
    return opened.broker(request.param)
