"""Sample data of a web shop, for screenshots and tests. Except for dates it is the same at each run.

It contains tasks, workflows, workers, schedules and the counters of past days.
"""

import math
import random
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import msgspec

from taskq_core import TaskQ
from taskq_core.wire import SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo
from taskq_core.wire.samples import LEVELS, QueueSample
from taskq_core.wire.tallies import BOUNDS_S, HOUR_S, TypeCounters
from taskq_core.workflow import WorkflowHandle, chain, group, step
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put

S = 10**9
TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tenant": "acme"}
TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/shop/mail/tasks.py", line 41, in send_receipt
    connection.send_messages([message])
  File "/usr/lib/python3.13/smtplib.py", line 898, in sendmail
    raise SMTPRecipientsRefused(senderrs)
smtplib.SMTPRecipientsRefused: {'grace@example.com': (452, b'4.2.2 Mailbox full')}
"""
REFUSED = "SMTPRecipientsRefused: {'grace@example.com': (452, b'4.2.2 Mailbox full')}"
TIMED_OUT = "ReadTimeout: https://hooks.example.com/orders did not answer within 10 s"
DAILY = {"default": (5200, 0.011), "mail": (8300, 0.024), "images": (1900, 0.006), "reports": (140, 0.05)}
"""For each queue: the approximate number of runs per day, and the share of failed runs."""
QUEUES = {"default": 5, "mail": 3, "images": 2, "reports": 1}
TRACE_URL = "https://tempo.example/trace/{trace_id}"


@contextmanager
def registered_tasks(taskq: TaskQ) -> Iterator[None]:
    """Register the tasks of the shop, and no others, for the time of a block."""
    before = dict(taskq.tasks)
    taskq._tasks.clear()

    @taskq.task(name="mail:receipt", queue="mail", retention=86_400)
    def receipt(order: int, to: str, tone: Literal["warm", "brief"] = "warm", attachments: list[str] = []) -> None:  # noqa: B006 - never called
        """Send the receipt of an order."""

    @taskq.task(name="images:resize", queue="images", retention=86_400)
    def resize(picture: str, widths: list[int], quality: int = 80) -> None:
        """Make the pictures of a product in several widths."""

    @taskq.task(name="reports:sales", queue="reports", retention=86_400)
    def sales(day: str, by: Literal["shop", "product"] = "shop") -> dict[str, float]:
        """Add up a day's sales."""

    @taskq.task(name="orders:fulfil", retention=86_400)
    def fulfil(order: int) -> None:
        """Hand an order to the warehouse."""

    @taskq.task(name="hooks:deliver")
    def deliver(url: str, event: dict[str, Any]) -> None:
        """Send an event to another shop."""

    try:
        yield
    finally:
        taskq._tasks.clear()
        taskq._tasks.update(before)


class Scene:
    """The sample data in Redis.

    Args:
        redis: An empty Redis.
        taskq: A queue application that uses it.
    """

    def __init__(self, redis: RedisServer, taskq: TaskQ) -> None:
        self.redis = redis
        self.taskq = taskq
        self.random = random.Random(7)
        now: Any = redis.client.time()
        self.now_s = int(now[0])

    def build(self) -> None:
        """Store all sample data."""
        self._tasks()
        self._groups()
        self._past()
        self._workers()
        self._schedules()
        self._samples()
        self._runs()

    def enqueue(self, name: str, queue: str, ago: float, /, **arguments: Any) -> Any:
        """Enqueue a task that has been pending for some seconds."""
        task_id = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        handle = self.taskq.remote(name, queue=queue, task_id=task_id, headers={"tenant": "acme"}).delay(**arguments)
        self.redis.client.hset(f"asynq:{{{queue}}}:t:{task_id}", "pending_since", int((self.now_s - ago) * S))
        return handle

    def any_task(self, ago: float) -> Any:
        """Enqueue one of the shop's tasks."""
        order = self.random.randrange(48_000, 49_000)
        choices = [
            (
                "mail:receipt",
                "mail",
                {"order": order, "to": self.random.choice(("ada", "grace", "edsger")) + "@example.com"},
            ),
            ("images:resize", "images", {"picture": f"products/{order}.jpg", "widths": [320, 640, 1280]}),
            ("orders:fulfil", "default", {"order": order}),
            ("hooks:deliver", "default", {"url": "https://hooks.example.com/orders", "event": {"order": order}}),
        ]
        name, queue, arguments = self.random.choices(choices, (5, 2, 4, 3))[0]
        return self.enqueue(name, queue, ago, **arguments)

    @cached_property
    def workflow(self) -> WorkflowHandle:
        """A running workflow with a succeeded step, a failed step and a running group."""
        call = self.taskq.remote
        pictures = [call("images:resize").si(picture=f"{number}.jpg", widths=[320]) for number in range(12)]
        steps = chain(
            step(call("orders:fulfil").si(order=48_217), name="reserve"),
            group(
                step(call("hooks:deliver").si(url="https://pay.example.com", event={}), name="charge"),
                group(*pictures, name="pictures"),
                chain(
                    step(call("orders:fulfil").si(order=48_217), name="pick"),
                    step(call("orders:fulfil").si(order=48_217), name="pack"),
                ),
            ),
            step(call("mail:receipt").si(order=48_217, to="grace@example.com"), name="receipt"),
        )
        whole = steps.named("order-48217").on_error(step(call("hooks:deliver").s(), name="alarm"))
        handle = self.taskq.enqueue_workflow(whole)
        key = self.taskq.runtime.keys.queue(handle.queue).workflow(handle.id)
        spec: Any = self.redis.client.hget(key, "spec")
        numbers = {node[0]: number for number, node in enumerate(msgspec.json.decode(spec)["nodes"])}
        now_ms = self.now_s * 1000
        fields: dict[str, Any] = {}
        for name, state in (("reserve", "d"), ("charge", "f"), ("pictures", "p"), ("pick", "d"), ("pack", "p")):
            fields |= {f"s{numbers[name]}": state, f"z{numbers[name]}": now_ms}
        fields |= {f"e{numbers['charge']}": TIMED_OUT, f"gd{numbers['pictures']}": 7, f"gf{numbers['pictures']}": 1}
        fields |= {"open": 4, "bad": 1}
        self.redis.client.hset(key, mapping=fields)
        node = numbers["pictures"]
        self.redis.client.hdel(f"{key}:h{node}", *map(str, range(12)))
        for number in range(8):
            self.redis.client.setbit(f"{key}:d{node}", number, 1)
            done = msgspec.json.encode({"picture": f"{number}.jpg", "bytes": 18_000 + 997 * number})
            self.redis.client.hset(f"{key}:g{node}", str(number), done)
        self.redis.client.hdel(f"{key}:g{node}", "3")
        self.redis.client.hset(f"{key}:f{node}", "3", "OSError: image file is truncated (timeout reading 3.jpg)")
        self.redis.client.hset(key, f"r{numbers['reserve']}", '{"reserved":2}')
        return handle

    # --- parts --------------------------------------------------------------------------------------------------------

    def _tasks(self) -> None:
        for number in range(46):
            self.any_task(48 - number)
        for number in range(9):
            self.put(self.any_task(900), "scheduled", self.now_s + 640 + number * 1730)
        for number in range(6):
            handle = self.any_task(500)
            self.put(handle, "retry", self.now_s + 95 + number * 310, 70 + number * 200, 1 + number % 4, TIMED_OUT)
        for number in range(5):
            self.put(
                self.any_task(9000), "archived", self.now_s - 5000 - number * 7900, 5000 + number * 7900, 25, TIMED_OUT
            )
        for number in range(38):
            self.put(self.any_task(4000), "completed", self.now_s + 86_400 - 120 * number)
        self.failing = self.enqueue("mail:receipt", "mail", 7200, order=48_217, to="grace@example.com", tone="brief")
        self.put(self.failing, "retry", self.now_s + 1290, 330, 3, REFUSED, headers=TRACE)
        self.attempts(self.failing, [(6900, 2.1), (4100, 1.8), (331, 2.4)], "smtplib.SMTPRecipientsRefused", TRACEBACK)

    def put(
        self,
        handle: Any,
        state: str,
        score: int,
        failed_ago: int | None = None,
        retried: int = 0,
        error: str = "",
        **more: Any,
    ) -> None:
        """Put a task into a state."""
        fields: dict[str, Any] = {"retried": retried, "error_msg": error, **more}
        if failed_ago is not None:
            fields["last_failed_at"] = self.now_s - failed_ago
        if state == "completed":
            fields |= {"retention": 86_400, "completed_at": score - 86_400}
        put(self.redis, handle, state, score=score, **fields)

    def attempts(self, handle: Any, times: list[tuple[float, float]], error: str, traceback: str) -> None:
        """Store the attempts of a task: for each, how many seconds ago it began and how long it took."""
        lines = [
            msgspec.json.encode(
                {
                    "attempt": number,
                    "worker": "c0ffee5a1ad0beef",
                    "started": int((self.now_s - ago) * 1000),
                    "ended": int((self.now_s - ago + took) * 1000),
                    "error": error,
                    "traceback": traceback,
                }
            )
            for number, (ago, took) in enumerate(times, 1)
        ]
        self.redis.client.hset(f"asynq:{{{handle.queue}}}:t:{handle.id}", "taskq_attempts", b"\n".join(lines))

    def _groups(self) -> None:
        for number in range(7):
            self.taskq.remote("search:index", queue="default", aggregate=f"shop:{number % 2}").delay(product=number)

    def _past(self) -> None:
        today = datetime.fromtimestamp(self.now_s, UTC).date()
        for queue, (usual, share) in DAILY.items():
            total = failures = 0
            for back in range(89, -1, -1):
                day = today - timedelta(days=back)
                season = 0.75 if day.weekday() >= 5 else 1 + 0.06 * math.sin(back / 5)
                processed = int(usual * season * self.random.uniform(0.9, 1.1) * (0.6 if back == 0 else 1))
                failed = int(processed * share * self.random.uniform(0.4, 1.8) * (6 if back == 11 else 1))
                self.redis.client.set(f"asynq:{{{queue}}}:processed:{day}", processed)
                self.redis.client.set(f"asynq:{{{queue}}}:failed:{day}", failed)
                total, failures = total + processed, failures + failed
            self.redis.client.set(f"asynq:{{{queue}}}:processed", total)
            self.redis.client.set(f"asynq:{{{queue}}}:failed", failures)
        self.redis.client.set("asynq:{reports}:paused", self.now_s - 3600)
        self.enqueue("reports:sales", "reports", 3100, day="2026-11-24")

    def _schedules(self) -> None:
        entries = [
            ("nightly", "0 3 * * *", "reports:sales", {"day": "yesterday"}, 9 * 3600),
            ("hooks", "@every 5m", "hooks:deliver", {"url": "https://hooks.example.com/ping", "event": {}}, 140),
            ("thumbnails", "30 */2 * * 1-5", "images:resize", {"picture": "all", "widths": [320]}, 4200),
        ]
        key = self.taskq.runtime.keys.scheduler("web-1", 4022, "5ca1ab1e")
        for name, spec, task, arguments, due_s in entries:
            entry = SchedulerEntry(
                id=name,
                spec=spec,
                task_type=task,
                task_payload=msgspec.json.encode(arguments),
                enqueue_options=(f'Queue("{task.partition(":")[0]}")', "MaxRetry(3)"),
                next_enqueue_time_ns=(self.now_s + due_s) * S,
                prev_enqueue_time_ns=(self.now_s - 300) * S,
            )
            self.redis.client.rpush(key, entry.encode())
            for number in range(8):
                at_s = self.now_s - 300 * (number + 1)
                event = SchedulerEnqueueEvent(task_id=f"fired-{number}", enqueue_time_ns=at_s * S)
                history = self.taskq.runtime.keys.scheduler_history(name)
                self.redis.client.zadd(history, {event.encode(): at_s})
        self.redis.client.expire(key, 600)
        self.redis.client.zadd(self.taskq.runtime.keys.schedulers, {key: self.now_s + 600})

    def _samples(self) -> None:
        for queue, (usual, share) in DAILY.items():
            for level in LEVELS:
                counted = failed = 0.0
                pipeline = self.redis.client.pipeline(transaction=False)
                for number in range(level.most):
                    at_s = self.now_s - level.step_s * (level.most - number)
                    if number in range(level.most * 2 // 3, level.most * 2 // 3 + 12) and queue == "images":
                        continue
                    busy = (1 + 0.6 * math.sin(at_s / 7000 + usual)) * self.random.uniform(0.9, 1.1)
                    counted += usual / 86_400 * level.step_s * busy * 20
                    failed += usual / 86_400 * level.step_s * busy * 20 * share * self.random.uniform(0, 2)
                    sample = QueueSample(
                        at_s=at_s,
                        active=int(3 * busy),
                        pending=int(usual / 400 * busy**2),
                        scheduled=9,
                        retry=int(6 * busy),
                        archived=5 + number // 200,
                        completed=38,
                        latency_ms=int(usual * busy**3 / 4),
                        processed=int(counted),
                        failed=int(failed),
                        memory_kib=int(usual / 10 * busy) + 40,
                        busy=int(8 * busy),
                        slots=20,
                    )
                    pipeline.lpush(self.taskq.runtime.keys.queue(queue).samples(level.step_s), sample.encode())
                pipeline.execute()

    def _runs(self) -> None:
        runs = [
            ("mail", "mail:receipt", 4980, 132, 0.31),
            ("images", "images:resize", 1140, 7, 2.6),
            ("default", "orders:fulfil", 2105, 11, 0.047),
            ("default", "hooks:deliver", 1015, 64, 0.9),
            ("reports", "reports:sales", 84, 4, 75.0),
        ]
        for queue, name, count, failed, usual_s in runs:
            tally = TypeCounters(count, failed, failed // 8, 0, [0] * (len(BOUNDS_S) + 1))
            for _ in range(count):
                took_s = self.random.lognormvariate(math.log(usual_s), 0.7)
                tally.total_ms += took_s * 1000
                tally.buckets[bisect_left(BOUNDS_S, took_s)] += 1
            key = self.taskq.runtime.keys.queue(queue).tally(self.now_s // HOUR_S)
            self.redis.client.hset(key, name, tally.encode())

    def _workers(self) -> None:
        self._worker(
            "web-1",
            4021,
            5 * 86_400 + 4000,
            {"default": 5, "mail": 3},
            [("orders:fulfil", "default", 3), ("mail:receipt", "mail", 1)],
        )
        self._worker("web-2", 3977, 5 * 86_400 + 3900, {"default": 5, "mail": 3}, [("hooks:deliver", "default", 8)])
        self._worker("media-1", 812, 9 * 3600 + 700, {"images": 2, "reports": 1}, [("images:resize", "images", 47)])

    def _worker(
        self, host: str, pid: int, up_s: int, queues: dict[str, int], running: list[tuple[str, str, int]]
    ) -> None:
        server_id = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        name = f"{{{host}:{pid}:{server_id}}}"
        who: Any = {"host": host, "pid": pid, "server_id": server_id}
        client, later = self.redis.client, self.now_s + 10**8
        info = ServerInfo(
            **who,
            concurrency=10,
            queues=queues,
            start_time_ns=(self.now_s - up_s) * S,
            active_worker_count=len(running),
        )
        client.set(f"asynq:servers:{name}", info.encode())
        client.zadd("asynq:servers", {f"asynq:servers:{name}": later})
        client.zadd("asynq:workers", {f"asynq:workers:{name}": later})
        for task_name, queue, since_s in running:
            handle = self.enqueue(task_name, queue, since_s + 1, order=48_300 + since_s)
            self.put(handle, "active", self.now_s + 10**6)
            client.hset(
                f"asynq:{{{queue}}}:t:{handle.id}",
                mapping={
                    "taskq_started": (self.now_s - since_s) * 1000,
                    "taskq_owner": f"{server_id[:16]}:{self.now_s + 10**6}",
                },
            )
            facts: Any = {"task_id": handle.id, "task_type": task_name, "queue": queue}
            started = (self.now_s - since_s) * S
            task = WorkerInfo(**who, **facts, start_time_ns=started, deadline_ns=started + 1800 * S)
            client.hset(f"asynq:workers:{name}", handle.id, task.encode())
