"""Test that a settlement that the kernel delivers late does not change a later run of the task."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskq_core import TaskQ
from taskq_core.broker.pipelines import Pipeline
from tests.taskq_core.worker.conftest import Runner
from tests.taskq_core.worker.test_late_settlements import check_second_run
from tests.two_paths import NoNamespaceError, TwoPaths


@pytest.fixture
def two_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoPaths]:
    paths = TwoPaths(tmp_path)
    try:
        paths.__enter__()
    except NoNamespaceError as error:
        pytest.skip(f"needs root and network namespaces: {error}")
    monkeypatch.setattr(socket, "getaddrinfo", paths.resolve(socket.getaddrinfo))
    yield paths
    paths.__exit__()


@pytest.mark.slow
async def test_a_settlement_that_the_kernel_delivers_late_changes_nothing(
    two_paths: TwoPaths, start: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the meantime, the worker reaches Redis over another link."""
    monkeypatch.setitem(Pipeline.__init__.__kwdefaults__, "timeout_s", 0.5)
    near, far = TaskQ(two_paths.server.unix_url), TaskQ(two_paths.url)

    def hold() -> Callable[[], object]:
        two_paths.cut_first()
        return two_paths.restore_first

    await check_second_run(near, far, start, two_paths.server, "deleted", hold)
    await near.aclose()
