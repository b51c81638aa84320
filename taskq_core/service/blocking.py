"""Run blocking calls of coroutines in daemon threads, so that a hanging call does not keep the process alive."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """Threads for blocking calls that coroutines await, as with `asyncio.to_thread`. Python does not join them at exit.

    At its exit, Python joins the threads of `ThreadPoolExecutor`. So a hanging call would keep a worker process alive,
    while another worker already runs the same task. This class is a subclass of `ThreadPoolExecutor` only because an
    event loop accepts no other executor.

    Args:
        max_workers: Maximum number of threads. A call that finds no free thread starts one. The default is that of
            `ThreadPoolExecutor`.
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
                raise RuntimeError("these threads were shut down and accept no further calls")
            self._open.add(future)
            future.add_done_callback(self._open.discard)
            # Put the call into the queue before starting a thread, so that the new thread finds the call.
            self._calls.put(partial(_call, future, partial(fn, *args, **kwargs)))
            # Start several threads: earlier calls may have got none, because the system allowed no more threads then.
            while self._count < min(len(self._open), self._max_workers):
                try:
                    threading.Thread(target=self._serve, name=f"asyncio_{self._count}", daemon=True).start()
                    self._count += 1
                except RuntimeError:  # the system allows no more threads: the call waits for an existing thread
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
            del call  # an idle thread must not keep the objects of its last call alive

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls. Threads end once the accepted calls are done."""
        with self._lock:
            self._is_shut = True
            for _ in range(self._count):
                self._calls.put(None)

    def wait(self, timeout_s: float) -> None:
        """Wait until all running and waiting calls have ended, at most `timeout_s` seconds."""
        wait(set(self._open), timeout_s)


def run_service(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new event loop as `asyncio.run` does, but do not wait for blocking calls at the end.

    For example, the lookup of a host name may take many seconds.
    """
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(DaemonThreads())
        return runner.run(main)


def _call(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
