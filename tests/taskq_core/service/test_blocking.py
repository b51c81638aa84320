"""Threads for blocking calls of coroutines."""

import sys
import threading
from collections.abc import Iterator

import pytest

from taskq_core.service.blocking import DaemonThreads
from tests.taskq_core.worker.conftest import until_blocking


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    threads = DaemonThreads()
    yield threads
    threads.shutdown()


def divide(number: int, *, by: int) -> float:
    return number / by


def test_results_and_exceptions_of_a_function_are_passed_on(threads: DaemonThreads) -> None:
    assert threads.submit(divide, 6, by=3).result(30) == 2
    with pytest.raises(ZeroDivisionError):
        threads.submit(divide, 6, by=0).result(30)


def test_calls_over_the_number_of_threads_wait_and_are_all_made(threads: DaemonThreads) -> None:
    most = threads._max_workers
    gate, begun = threading.Event(), threading.Semaphore(0)

    def hold(number: int) -> tuple[int, str, bool]:
        begun.release()
        assert gate.wait(30)
        return number, threading.current_thread().name, threading.current_thread().daemon

    futures = [threads.submit(hold, number) for number in range(2 * most)]
    for _ in range(most):
        assert begun.acquire(timeout=30)
    assert not begun.acquire(blocking=False)
    gate.set()

    results = [future.result(30) for future in futures]
    assert [number for number, _, _ in results] == list(range(2 * most))
    assert len({name for _, name, _ in results}) <= most
    assert all(is_daemon for _, _, is_daemon in results)


def test_a_free_thread_takes_the_next_call(threads: DaemonThreads) -> None:
    names = set()
    for _ in range(50):
        names.add(threads.submit(lambda: threading.current_thread().name).result(30))
        until_blocking(lambda: not threads._open, "it is known that the call is over")

    assert len(names) == 1


def test_a_hanging_call_does_not_block_others(threads: DaemonThreads) -> None:
    gate = threading.Event()
    hanging = threads.submit(gate.wait, 30)

    assert [threads.submit(divide, 4, by=2).result(30) for _ in range(20)] == [2] * 20
    gate.set()
    assert hanging.result(30)


def test_hanging_calls_have_one_thread_each() -> None:
    """One that takes a call as it becomes free is not counted as free as well."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that any thread is met at any place
    try:
        for _ in range(300):
            threads, gate, begun = DaemonThreads(4), threading.Event(), threading.Semaphore(0)

            def hang(gate: threading.Event = gate, begun: threading.Semaphore = begun) -> bool:
                begun.release()
                return gate.wait(30)

            for _ in range(3):
                threads.submit(divide, 4, by=2).result(30)
            hanging = [threads.submit(hang) for _ in range(4)]
            assert all(begun.acquire(timeout=30) for _ in hanging)
            gate.set()
            assert all(future.result(30) for future in hanging)
            threads.shutdown()
    finally:
        sys.setswitchinterval(usual_s)


def test_a_call_cancelled_before_its_start_is_not_made(threads: DaemonThreads) -> None:
    gate = threading.Event()
    holding = [threads.submit(gate.wait, 30) for _ in range(threads._max_workers)]
    made: list[int] = []
    cancelled = threads.submit(made.append, 1)
    assert cancelled.cancel()
    gate.set()

    assert all(future.result(30) for future in holding)
    threads.submit(made.append, 2).result(30)
    assert made == [2]


def test_the_end_waits_a_bounded_time_for_running_calls(threads: DaemonThreads) -> None:
    gate = threading.Event()
    hanging = threads.submit(gate.wait, 30)
    threads.wait(0)
    assert not hanging.done()

    ended = threads.submit(divide, 4, by=2)
    gate.set()
    threads.wait(30)
    assert hanging.done()
    assert ended.done()


def test_calls_after_the_end_are_refused(threads: DaemonThreads) -> None:
    threads.submit(divide, 4, by=2).result(30)
    threads.shutdown()

    with pytest.raises(RuntimeError, match="accept no further calls"):
        threads.submit(divide, 4, by=2)


def test_a_failed_start_of_a_thread_is_raised_to_the_caller(
    threads: DaemonThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there is a thread already, it takes the call instead."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.submit(divide, 4, by=2)
    gate = threading.Event()
    holding = threads.submit(gate.wait, 30)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        later = threads.submit(divide, 4, by=2)
    gate.set()

    assert holding.result(30)
    assert later.result(30) == 2


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
