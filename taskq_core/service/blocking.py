"""Threads for blocking calls of coroutines, for which Python does not wait when the process ends."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """Threads for what coroutines wait for, as with `asyncio.to_thread`. Python does not wait for them when it ends.

    It does for those of the class that this one derives from, because an event loop takes no other: one call that hangs
    would keep the process from ending, while another worker runs its task. Nothing else of that class is used.

    Args:
        max_workers: Most threads, each started when a call finds none free; the default is that of the class above.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(max_workers)
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0
        self._is_shut = False
        self._open: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function as soon as a thread is free."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("these threads were shut down, and take no more calls")
            self._open.add(future)
            future.add_done_callback(self._open.discard)
            self._calls.put(partial(_call, future, partial(fn, *args, **kwargs)))  # first: a new thread finds it
            while self._count < min(len(self._open), self._max_workers):  # also for calls that could not get one
                try:
                    threading.Thread(target=self._serve, name=f"asyncio_{self._count}", daemon=True).start()
                    self._count += 1
                except RuntimeError:  # the system has none: it waits for one of those that there are
                    if not self._count:
                        future.cancel()
                        raise
                    break
        return future

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            call()
            del call  # an idle thread keeps nothing of its last call alive

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Threads end as soon as nothing is left to do."""
        with self._lock:
            self._is_shut = True
            for _ in range(self._count):
                self._calls.put(None)

    def wait(self, timeout_s: float) -> None:
        """Wait for what is being called, at most so long."""
        wait(set(self._open), timeout_s)


def _call(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
