"""The stage: Redis, the processes of the soak, and the operations on them that faults use.

All faults run in one thread. They are generators that act and then yield the seconds to wait, so faults that overlap
take turns and need no locks. Each operation is recorded in the conductor's ledger. The invariants read from it which
effects were allowed.
"""

import heapq
import itertools
import logging
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from taskq_core.broker.failures import translate
from taskq_core.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    BulkEnqueueError,
    EnqueueError,
    EnqueueUnknownError,
    NotReplicatedError,
)
from taskq_core.tasks.canvas import Signature
from taskq_core.wire import QueueKeys
from tests.relay import HeldRequest, Relay
from tests.soak.ledger import Ledger, read
from tests.soak.processes import Place, until
from tests.soak.profiles import Profile
from tests.soak.program import QUEUES, app
from tests.soak.schedule import Plan, PlannedFault
from tests.soak.stores import STORES

logger = logging.getLogger("soak")

Fault = Callable[["Stage", PlannedFault], Iterator[float]]

INJECTOR = 9
"""Producer number of the faults, which enqueue tasks as well. It determines their range of slots."""
PRODUCERS = ("blocking", "concurrent", "on_commit")
START_S = 120.0
"""Maximum seconds until all nine processes have started."""
STOP_S = 60.0
"""Maximum seconds until stopped processes have exited."""
ENQUEUE_S = 1.0
"""Timeout of an enqueue by a fault, which blocks all other faults."""
AT_ONCE = 2
"""Maximum number of simultaneous faults."""


class Stage:
    """All processes of a soak and its Redis, which run while its context is open.

    Args:
        profile: Which processes to start, and with which settings.
        seed: Seed of the producers.
        folder: Folder for ledgers, logs and Redis's data.
    """

    def __init__(self, profile: Profile, seed: int, folder: Path) -> None:
        self.profile = profile
        self.folder = folder
        (folder / "ledger").mkdir()
        (folder / "logs").mkdir()
        self.ledger = Ledger(folder / "ledger", "conductor")
        data = folder / "redis"
        data.mkdir()
        self.store: Any = STORES[profile.store](data)
        self._seed = seed
        self.places: list[Place] = []
        self._taken: set[str] = set()
        self._slots = self._enqueued = 0
        self.held: list[HeldRequest] = []
        """Requests that faults wait for or hold. `heal` releases them."""
        self.client: Any = None
        """A client that bypasses all relays and has a short timeout."""

    # --- start and end ------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Stage":
        try:
            self.store.open()
            self.client = self.store.client()
            defaults = {**app.settings.defaults, "replicated": self.profile.replicated}
            app.configure(replace(app.settings, url=self.store.url, defaults=defaults, enqueue_timeout=ENQUEUE_S))
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> None:
        profile, leases = self.profile, self.profile.leases
        worker = {
            "queues": QUEUES,
            "concurrency": profile.concurrency,
            "lease": leases.lease,
            "heartbeat": leases.heartbeat,
            "lease_grace": leases.grace,
            "recover_every": leases.recover_every,
            "reconcile_every": profile.reconcile_every,
            "clean_every": profile.clean_every,
            "dead_letters_every": profile.dead_letters_every,
            "leader_lease": profile.leader_lease,
            "shutdown_grace": profile.shutdown_grace,
            "health_port": 0,
        }
        for number in range(profile.workers):
            self._add(f"worker-{number}", "tests.soak.worker", {"config": worker})
        for number in range(profile.schedulers):
            config = {"leader_lease": max(1.0, profile.leader_lease)}
            self._add(f"scheduler-{number}", "tests.soak.scheduler", {"config": config})
        for number, kind in enumerate(PRODUCERS):
            seed = f"{self._seed}:producer:{number}"
            given = {"number": number, "kind": kind, "rate": profile.rate, "seed": seed}
            self._add(f"producer-{number}", "tests.soak.producer", given)
        for place in self.places:
            if place.role != "producer":
                self.start(place)
        self.wait_until_ready()

    def _add(self, name: str, module: str, arguments: dict[str, Any]) -> None:
        relay = None
        if self.store.relayed is not None:
            relay = Relay(self.store.relayed)
            relay.__enter__()
        self.places.append(
            Place(
                name=name,
                module=module,
                arguments={"folder": str(self.folder), **arguments},
                url=self.store.url if relay is None else relay.url,
                is_replicated=self.profile.replicated,
                own_relay=relay,
                folder=self.folder,
            )
        )

    def start(self, place: Place) -> None:
        """Start a process in a place."""
        place.start()
        self.ledger.write("started", place=place.name, process=place.pid)

    def start_producers(self) -> None:
        for place in self.producers:
            self.start(place)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until every process that should run has connected."""

        def are_ready() -> bool:
            self.supervise()
            return all(place.is_ready for place in self.places if place.starts and place.wanted)

        until(are_ready, "all processes have connected", timeout_s=START_S)

    def close(self) -> None:
        for place in self.places:
            place.end()
        for place in self.places:
            if place.own_relay is not None:
                place.own_relay.__exit__()
        for number, server in enumerate(self.store.servers):
            with suppress(FileNotFoundError):
                shutil.copy(server.folder / "redis.log", self.folder / "logs" / f"redis-{number}.log")
        self.store.close()
        self.ledger.close()

    # --- places -------------------------------------------------------------------------------------------------------

    def _of_role(self, role: str) -> list[Place]:
        return [place for place in self.places if place.role == role]

    @property
    def workers(self) -> list[Place]:
        return self._of_role("worker")

    @property
    def schedulers(self) -> list[Place]:
        return self._of_role("scheduler")

    @property
    def producers(self) -> list[Place]:
        return self._of_role("producer")

    def take(self, role: str, draw: random.Random) -> Place:
        """Reserve a random place for a fault, so that no other fault uses it."""
        free = [place for place in self._of_role(role) if place.name not in self._taken]
        ready = [place for place in free if place.is_ready] or free
        if not ready:
            raise LookupError(f"every {role} is used by a fault; too many faults of the plan overlap")
        place = draw.choice(ready)
        self._taken.add(place.name)
        return place

    def give_back(self, place: Place) -> None:
        self._taken.discard(place.name)

    def leading_scheduler(self, draw: random.Random) -> Place:
        """Reserve the scheduler that fired last according to the ledgers."""
        fired = [event for event in read(self.folder / "ledger") if event["event"] == "fired"]
        for place in self.schedulers:
            if fired and place.name == fired[-1]["who"] and place.name not in self._taken and place.is_ready:
                self._taken.add(place.name)
                return place
        return self.take("scheduler", draw)

    # --- operations of faults -----------------------------------------------------------------------------------------

    def kill(self, place: Place, *, back_after_s: float = 1.0) -> None:
        """Kill the process with SIGKILL. It is restarted after `back_after_s` seconds."""
        place.start_at = time.monotonic() + back_after_s
        if place.process is None:
            return
        self.ledger.write("killed", place=place.name, process=place.pid)
        place.send(signal.SIGKILL)
        place.process.wait()
        place.take_exit()

    def freeze(self, place: Place) -> None:
        """Stop the process with SIGSTOP."""
        if place.process is not None:
            place.send(signal.SIGSTOP)
            place.is_frozen = True
            self.ledger.write("frozen", place=place.name, process=place.pid)

    def thaw(self, place: Place) -> None:
        """Continue a frozen process with SIGCONT."""
        if place.process is not None and place.is_frozen:
            self.ledger.write("thawed", place=place.name, process=place.pid)
            place.send(signal.SIGCONT)
            place.is_frozen = False

    def outage(self, what: str, place: Place | None = None) -> Callable[[], None]:
        """Record the start of an outage of Redis for one place or for all. Returns a function that records its end."""
        key = next(_outages)
        name = None if place is None else place.name
        self.ledger.write("outage", key=key, what=what, place=name, unix=time.time())
        return lambda: self.ledger.write("outage over", key=key, what=what, place=name, unix=time.time())

    def expect(self, is_so: bool, otherwise: str) -> None:
        """If the condition is false, record the sentence as a violation of invariant 0."""
        if not is_so:
            self.ledger.write("unexpected", what=otherwise)

    def slot(self) -> int:
        """Return a slot of the table of effects that no producer uses."""
        self._slots += 1
        return INJECTOR * 1_000_000 + self._slots

    def enqueue(self, signature: Signature[Any], **facts: Any) -> str:
        """Enqueue a task without a relay, record it as a producer does, and return its id."""
        self._enqueued += 1
        task_id = f"injected-{self._enqueued}"
        signature = signature.using(task_id=task_id)
        given = {"slot": signature.args[0] if signature.args else None, **facts}
        self.ledger.write("attempt", id=task_id, name=signature.task.name, queue=signature.task.options.queue, **given)
        try:
            app.enqueue(signature)
        except (EnqueueUnknownError, NotReplicatedError):
            self.ledger.write("unknown", id=task_id)
        except EnqueueError as error:
            self.ledger.write("refused", id=task_id, why=type(error.__cause__ or error).__name__)
        else:
            self.ledger.write("acknowledged", id=task_id)
        return task_id

    def enqueue_together(self, signatures: Sequence[Signature[Any]]) -> list[str]:
        """Enqueue tasks in bulk and return their ids. Unless all are acknowledged, record all results as unknown."""
        calls = []
        for signature in signatures:
            self._enqueued += 1
            calls.append(signature.using(task_id=f"injected-{self._enqueued}"))
        for call in calls:
            options = call.task.options
            common = {"name": call.task.name, "queue": options.queue, "slot": call.args[0]}
            self.ledger.write("attempt", id=options.task_id, **common)
        answer = "acknowledged"
        try:
            app.client.enqueue_many(calls).raise_errors()
        except (BulkEnqueueError, ExceptionGroup):
            answer = "unknown"
        for call in calls:
            self.ledger.write(answer, id=call.task.options.task_id)
        return [str(call.task.options.task_id) for call in calls]

    def keys(self, queue: str) -> QueueKeys:
        return app.runtime.keys.queue(queue)

    @property
    def redis_runs(self) -> bool:
        """Whether the process of Redis is running."""
        return bool(self.store.server.is_running)

    def takes_writes(self) -> bool:
        """Whether Redis is available and not full."""
        return self.command("SET", "soak", "", "PX", 1) is not None

    def unfill(self) -> bool:
        """Remove Redis's memory limit. Return False if Redis is unavailable."""
        return self.command("CONFIG", "SET", "maxmemory", "0") is not None

    def run_endless_script(self) -> None:
        """Start a script that keeps Redis busy until it is killed, and do not wait for its response."""
        with socket.socket(socket.AF_UNIX) as sent:
            sent.connect(str(self.store.server.socket_path))
            sent.sendall(b"EVAL 'while true do end' 0\r\n")

    def failover(self, what: str) -> Callable[[], None]:
        """Record the start of a failover. Returns a function that records its end."""
        key = next(_outages)
        self.ledger.write("failover", key=key, what=what)
        return lambda: self.ledger.write("failover over", key=key, what=what)

    def killed_primary(self) -> Callable[[], None]:
        """Record that the primary is about to be killed. Returns a function that records the end of the failover."""
        failover_over, outage_over = self.failover("the primary was killed"), self.outage("the primary was killed")

        def over() -> None:
            outage_over()
            failover_over()

        return over

    def command(self, *words: str | int) -> Any:
        """Send a command to Redis. Return None if Redis is unavailable, full or refuses because of another fault."""
        try:
            return self.client.execute_command(*words)
        except (redis.RedisError, OSError) as error:
            if isinstance(translate(error, "Redis"), BrokerUnavailableError | BrokerFullError):
                return None
            raise

    # --- conducting ---------------------------------------------------------------------------------------------------

    def conduct(self, plan: Plan, faults: dict[int, Fault]) -> None:
        """Inject the faults of a plan, and restart processes that die.

        A fault may last longer than planned, because others delay it. No fault begins while two others are active.
        """
        began = time.monotonic()
        order = itertools.count()
        due: list[tuple[float, int, PlannedFault, Iterator[float]]] = [
            (began + fault.start_s, next(order), fault, faults[fault.number](self, fault)) for fault in plan.faults
        ]
        heapq.heapify(due)
        begun: set[PlannedFault] = set()
        over: set[PlannedFault] = set()
        while due or time.monotonic() < began + plan.load_s:
            now = time.monotonic()
            self.supervise()
            if due and due[0][0] <= now:
                _, _, fault, steps = heapq.heappop(due)
                if fault not in begun and len(begun - over) >= AT_ONCE:
                    heapq.heappush(due, (now + 0.1, next(order), fault, steps))
                    continue
                if fault not in begun:
                    begun.add(fault)
                    print(f"{now - began:6.1f} s  fault {fault.number}", flush=True)
                    self.ledger.write("fault", number=fault.number, seed=fault.seed)
                try:
                    pause_s = next(steps)
                except StopIteration:
                    over.add(fault)
                    self.ledger.write("fault over", number=fault.number, seed=fault.seed)
                else:
                    heapq.heappush(due, (time.monotonic() + pause_s, next(order), fault, steps))
                continue
            time.sleep(min(0.05, max(0.0, due[0][0] - now)) if due else 0.05)

    def supervise(self) -> None:
        """Record exits of processes, and restart processes that should run."""
        now = time.monotonic()
        for place in self.places:
            pid = place.process.pid if place.process is not None else 0
            status = place.take_exit()
            if status is not None:
                self.ledger.write("exited", place=place.name, process=pid, status=status)
                place.start_at = max(place.start_at, now + 0.5)
            place.check_ready()
            if place.process is None and place.wanted and now >= place.start_at and place.starts:
                self.start(place)

    def heal(self) -> None:
        """Undo the effects of all faults."""
        for place in self.places:
            self.thaw(place)
            if place.own_relay is not None:
                place.own_relay.forward()
            place.wanted = True
        for held in self.held:
            held.release()
        with suppress(TimeoutError):
            until(self.unfill, "Redis has no memory limit", timeout_s=STOP_S)

    def stop(self, places: Sequence[Place]) -> None:
        """Stop processes with SIGTERM and wait until they have ended. Other processes are still supervised."""
        for place in places:
            place.wanted = False
            place.send(signal.SIGTERM)

        def have_ended() -> bool:
            self.supervise()
            return all(place.process is None for place in places)

        until(have_ended, f"{[place.name for place in places]} have stopped", timeout_s=STOP_S)


_outages = itertools.count(1)
