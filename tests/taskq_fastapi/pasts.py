"""Write history into Redis for tests: samples, counters, workers and schedules, as real processes write them."""

from typing import Any

from taskq_core.wire import Keys, SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo
from taskq_core.wire.samples import LEVELS, QueueSample
from taskq_core.wire.tallies import BOUNDS_S, HOUR_S, TypeCounters
from tests.redis_server import RedisServer

SECOND = 1_000_000_000


class Past:
    """Writes the data that workers and schedulers would have written over time."""

    def __init__(self, server: RedisServer) -> None:
        self.raw: Any = server.client
        self.keys = Keys()
        self.now_s: int = self.raw.time()[0]

    def samples(self, name: str, *, per_s: int = 5, count: int = 360, gap: tuple[int, int] = (0, 0)) -> None:
        """Record samples of a queue, every ten seconds up to now, except for a gap."""
        self.raw.sadd(self.keys.queues, name)
        for level in LEVELS:
            pipeline = self.raw.pipeline(transaction=False)
            for number in range(count):
                if gap[0] <= number < gap[1]:
                    continue
                sample = QueueSample(
                    at_s=self.now_s - level.step_s * (count - number),
                    pending=number % 50,
                    retry=3,
                    archived=number,
                    latency_ms=1500 if number % 7 else None,
                    processed=per_s * level.step_s * number,
                    failed=number,
                    memory_kib=2048 + number,
                    busy=3,
                    slots=4,
                )
                pipeline.lpush(self.keys.queue(name).samples(level.step_s), sample.encode())
            pipeline.execute()

    def runs(self, queue: str, name: str, count: int, *, failed: int = 0, at_s: float = 0.2) -> None:
        """Write the counts of outcomes of this hour."""
        tally = TypeCounters.empty()
        tally.processed, tally.failed, tally.archived, tally.total_ms = count, failed, failed, count * at_s * 1000
        tally.buckets[sum(bound < at_s for bound in BOUNDS_S)] = count
        self.raw.sadd(self.keys.queues, queue)
        self.raw.hset(self.keys.queue(queue).tally(self.now_s // HOUR_S), name, tally.encode())

    def worker(
        self,
        host: str,
        pid: int,
        queues: dict[str, int],
        *,
        running: tuple[tuple[str, str, str], ...] = (),
        **more: Any,
    ) -> None:
        """Write the record of a live worker with running tasks (type, id and queue of each)."""
        server_id = f"id-{pid}"
        server, workers = self.keys.server(host, pid, server_id), self.keys.workers_of(host, pid, server_id)
        fields = {"concurrency": 10, "start_time_ns": (self.now_s - 3600) * SECOND, **more}
        info = ServerInfo(
            host=host, pid=pid, server_id=server_id, queues=queues, active_worker_count=len(running), **fields
        )
        self.raw.set(server, info.encode(), ex=600)
        self.raw.zadd(self.keys.servers, {server: self.now_s + 600})
        for number, (name, task_id, queue) in enumerate(running):
            run = WorkerInfo(
                host=host,
                pid=pid,
                server_id=server_id,
                task_id=task_id,
                task_type=name,
                queue=queue,
                start_time_ns=(self.now_s - 90 - number) * SECOND,
                deadline_ns=(self.now_s + 600 - 700 * number) * SECOND,
            )
            self.raw.hset(workers, task_id, run.encode())
        if running:
            self.raw.expire(workers, 600)
            self.raw.zadd(self.keys.workers, {workers: self.now_s + 600})

    def schedule(self, *entries: SchedulerEntry, fired: int = 0) -> None:
        """Write the record of a live scheduler with entries, each with this number of firings."""
        key = self.keys.scheduler("box", 7, "s1")
        for entry in entries:
            self.raw.rpush(key, entry.encode())
            for number in range(fired):
                at_s = self.now_s - 60 * number
                event = SchedulerEnqueueEvent(task_id=f"fired-{number}", enqueue_time_ns=at_s * SECOND)
                self.raw.zadd(self.keys.scheduler_history(entry.id), {event.encode(): at_s})
        self.raw.expire(key, 600)
        self.raw.zadd(self.keys.schedulers, {key: self.now_s + 600})

    def fired(self, entry_id: str, task_id: str) -> None:
        """Record that an entry enqueued a task."""
        event = SchedulerEnqueueEvent(task_id=task_id, enqueue_time_ns=self.now_s * SECOND)
        self.raw.zadd(self.keys.scheduler_history(entry_id), {event.encode(): self.now_s})

    def entry(self, entry_id: str = "nightly", **more: Any) -> SchedulerEntry:
        """Return an entry that is due soon."""
        fields = {
            "spec": "0 3 * * *",
            "task_type": "report:build",
            "task_payload": b'{"day":1}',
            "enqueue_options": ('Queue("low")', "MaxRetry(3)"),
            "next_enqueue_time_ns": (self.now_s + 600) * SECOND,
            "prev_enqueue_time_ns": (self.now_s - 600) * SECOND,
            **more,
        }
        return SchedulerEntry(id=entry_id, **fields)
