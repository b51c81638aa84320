"""Extend leases and write the worker's presence, from a separate thread and connection.

So no lease is lost while the event loop is blocked or the thread pool is busy. Each beat extends the leases of running
tasks. It also writes the worker's presence: its description and its running tasks, in the format of Go's tools. While
nothing runs and nothing has changed, a beat only extends the expiry of this presence. If a lease cannot be extended in
time, this worker gives it up before another worker may take the task.
"""

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import Callable

from taskq_core.broker.operations import runs as run_ops
from taskq_core.broker.operations import services
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerError
from taskq_core.wire import QueueKeys, ServerInfo, WorkerInfo
from taskq_core.wire.durations import LATEST_S
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.run import Ending, Run

logger = logging.getLogger("taskq.worker")

EXTEND_BATCH = 200
"""Maximum number of leases that one script call extends."""
INDEX_BEATS = 12
"""Number of beats between two writes of the worker to the indexes of live workers. An index may list a dead worker for
a while, so readers of an index also check whether the worker's presence exists."""


class Keepalive:
    """Extends leases and writes presence.

    Args:
        runner: A runner that no other code uses.
        context: The worker.
        describe: Returns the worker's presence.
        lost: Called on the keepalive's thread with runs whose lease is lost.
        check_loop: Checks the event loop between beats. Returns the seconds until the next check.
    """

    def __init__(
        self,
        runner: SyncRunner,
        context: WorkerContext,
        *,
        describe: Callable[[], ServerInfo],
        lost: Callable[[list[Run]], None],
        check_loop: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._context = context
        self._runner = runner
        self._keys = context.keys
        self._clock = context.clock
        self._redis_clock = context.redis_clock
        self._check_loop = check_loop
        self._describe = describe
        self._lost = lost
        self._every_s = context.heartbeat_s
        self._lease_s = context.lease_s
        self._presence_s = max(2, round(2 * self._every_s))
        self._indexed_s = math.ceil(INDEX_BEATS * self._every_s)
        self._shown: tuple[bytes, dict[str, bytes]] | None = None
        self._index_at = -math.inf
        self._failures = 0
        self._failing: set[QueueKeys] = set()
        self._stop = threading.Event()
        self._has_ended = asyncio.Event()

    def start(self) -> None:
        """Start the thread, which sends the first heartbeat at once."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._run_and_report, args=(loop,), name="taskq-keepalive", daemon=True).start()

    def request_stop(self) -> None:
        """Make the thread delete the worker's presence and end. Return without waiting for this."""
        self._stop.set()

    def _running(self) -> list[Run]:
        return list(self._context.running.values())

    async def stop(self) -> None:
        """Make the thread delete the worker's presence and end. Wait at most two heartbeats until it has ended."""
        self.request_stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * self._every_s):
                await self._has_ended.wait()

    def _run_and_report(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._run()
        finally:
            self._runner.close()
            with contextlib.suppress(RuntimeError):  # raised if the event loop is closed
                loop.call_soon_threadsafe(self._has_ended.set)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._rest(pause_s):
            started = self._clock.monotonic()
            # If a task has used all memory, even the log call may fail, but this thread must continue.
            with contextlib.suppress(MemoryError):
                self._beat_or_log()
            pause_s = max(self._every_s / 10, self._every_s - (self._clock.monotonic() - started))
        try:
            self._delete_presence()
        except BrokerError as error:
            logger.warning("the worker's presence could not be deleted: %s; it expires by itself", error)

    def _rest(self, pause_s: float) -> bool:
        """Wait until the next heartbeat is due, and check the event loop while waiting.

        Return True if the thread has to end.
        """
        ends_at = self._clock.monotonic() + pause_s
        while (left_s := ends_at - self._clock.monotonic()) > 0:
            if self._clock.wait(self._stop, min(left_s, self._check_loop())):
                return True
        return self._stop.is_set()

    def _beat_or_log(self) -> None:
        try:
            try:
                if self._failures:
                    self._give_up(again=False)  # before the heartbeat, because a heartbeat may take long to fail
                self.beat()
            finally:
                self._give_up()
            self._failures = 0
            self._context.outage.answered()
        except BrokerError as error:
            self._failures += 1
            self._context.outage.report("the heartbeat failed", error, self._failures)
        except Exception:
            logger.exception("heartbeat failed")

    def beat(self) -> None:
        """Extend the leases of running tasks, then write the worker's presence."""
        runs = [run for run in self._running() if run.settlement is None]
        self._extend(runs)
        info = self._describe()
        server = self._keys.server(info.host, info.pid, info.server_id)
        workers = self._keys.workers_of(info.host, info.pid, info.server_id)
        shown = info.encode(), {run.task_id: self._worker_info(info, run) for run in runs}
        is_kept = not runs and shown == self._shown
        if not is_kept or not self._runner.run(services.extend_presence(server, ttl_s=self._presence_s)):
            if is_kept:
                self._index_at = -math.inf  # the presence is gone from Redis, so its index entry may be gone too
            self._runner.run(
                services.beat(server, workers, ttl_s=self._presence_s, server_info=shown[0], workers=shown[1])
            )
            self._shown = shown
        # Write the index last. Redis refuses this write above maxmemory, and the heartbeat must succeed without it.
        if (now := self._clock.monotonic()) >= self._index_at:
            expiry_s = int(self._redis_clock.time()) + self._presence_s + self._indexed_s
            self._runner.run(services.index_presence(self._keys.servers, server, expiry_s=expiry_s))
            self._runner.run(services.index_presence(self._keys.workers, workers, expiry_s=expiry_s))
            self._index_at = now + self._indexed_s - self._every_s / 2

    def _worker_info(self, server: ServerInfo, run: Run) -> bytes:
        offset = self._redis_clock.time() - self._clock.monotonic()
        return WorkerInfo(
            host=server.host,
            pid=server.pid,
            server_id=server.server_id,
            # an id in Redis may contain bytes that are not UTF-8
            task_id=run.task_id.encode(errors="replace").decode(),
            task_type=run.name,
            queue=run.queue.name,
            start_time_ns=int((run.started + offset) * 1e9),
            # Another client may have written a deadline that is too large for a protobuf timestamp.
            deadline_ns=int(min(run.ends_by + offset, LATEST_S) * 1e9),
        ).encode()

    def _extend(self, runs: list[Run]) -> None:
        """Extend the leases that were not extended within about the last heartbeat.

        Queues that failed last time come last. So a queue with damaged keys, or on a cluster node that is down, does
        not delay the other queues unless its request takes a whole heartbeat.

        Raises:
            BrokerError: At least one queue failed.
        """
        now = self._clock.monotonic()
        by_queue: dict[QueueKeys, list[Run]] = {}
        for run in runs:
            if run.lease_until - now < self._lease_s - self._every_s / 2:
                by_queue.setdefault(run.queue, []).append(run)
        failure: BrokerError | None = None
        for queue in sorted(by_queue, key=self._failing.__contains__):
            try:
                self._extend_of(queue, by_queue[queue])
                self._failing.discard(queue)
            except BrokerError as error:
                self._failing.add(queue)
                failure = failure or error
                if self._clock.monotonic() - now >= self._every_s:
                    break
            finally:
                if self._failing:
                    # Give up expired leases after each queue, because the next queue may be slow to answer.
                    self._give_up(again=False)
        if failure is not None:
            raise failure

    def _extend_of(self, queue: QueueKeys, runs: list[Run]) -> None:
        context = self._context
        for start in range(0, len(runs), EXTEND_BATCH):
            batch = runs[start : start + EXTEND_BATCH]
            tasks = [(run.task_id, run.number) for run in batch]
            sent_at = self._clock.monotonic()
            answer = self._runner.run(
                run_ops.extend_leases(queue, tasks, owner=context.token, lease_s=context.lease_s, lock_s=context.lock_s)
            )
            lost = []
            for run, is_owned in zip(batch, answer.owned, strict=True):
                if is_owned:
                    # Subtract one second, because Redis stores lease times as whole seconds, rounded down.
                    run.lease_until = sent_at + self._lease_s - 1
                else:
                    lost.append(run)
            if lost:
                self._lost(lost)

    def _give_up(self, *, again: bool = True) -> None:
        """Give up leases that could not be extended, one heartbeat before other workers may recover their tasks.

        This may happen later if a queue takes long to answer or to fail.

        Args:
            again: Whether to include leases that were given up before, if their functions still run.
        """
        now = self._clock.monotonic()
        margin_s = max(0.0, self._context.grace_s - self._every_s)
        lapsed = [
            run
            for run in self._running()
            if run.settlement is None
            and now > run.lease_until + margin_s
            and (again or run.ending is not Ending.LEASE_LOST)
        ]
        if lapsed:
            self._lost(lapsed)

    def _delete_presence(self) -> None:
        info = self._describe()
        server = self._keys.server(info.host, info.pid, info.server_id)
        workers = self._keys.workers_of(info.host, info.pid, info.server_id)
        self._runner.run(services.unindex_presence(self._keys.servers, server))
        self._runner.run(services.unindex_presence(self._keys.workers, workers))
        self._runner.run(services.clear_presence(server, workers))
