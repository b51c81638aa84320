"""Where the soak takes place: a Redis, the processes around it, and what is done to them.

The conductor runs in one thread: faults are generators that do something and yield the seconds until they go on, so two
that overlap take turns and need no locks. Everything that is done is written into the conductor's ledger, from which
the verdict learns what was allowed to happen.
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
"""Number of the producer that the faults are."""
PRODUCERS = ("blocking", "concurrent", "on_commit")
START_S = 120.0
"""Seconds in which processes are started; on a busy machine it takes nine a while."""
STOP_S = 60.0
"""Seconds within which stopped processes have ended."""
ENQUEUE_S = 1.0
"""Seconds that a fault tries to enqueue a task, during which no other goes on."""
AT_ONCE = 2
"""Faults that are at work at a time."""


class Stage:
    """Everything that runs during a soak; a context manager.

    Args:
        profile: What it is made of.
        seed: What producers draw from.
        folder: Where ledgers, logs and Redis's data stand.
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
        """Requests that faults wait for or keep; let go in the end."""
        self.client: Any = None
        """A client past every relay, that never waits long."""

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
        """Start a process in its place."""
        place.start()
        self.ledger.write("started", place=place.name, process=place.pid)

    def start_producers(self) -> None:
        for place in self.producers:
            self.start(place)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until every process that is wanted has connected."""

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

    # --- who is there -------------------------------------------------------------------------------------------------

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
        """Take a place for a fault, so that no other harms it meanwhile."""
        free = [place for place in self._of_role(role) if place.name not in self._taken]
        ready = [place for place in free if place.is_ready] or free
        if not ready:
            raise LookupError(f"every {role} is taken by a fault; the plan overlaps too much")
        place = draw.choice(ready)
        self._taken.add(place.name)
        return place

    def give_back(self, place: Place) -> None:
        self._taken.discard(place.name)

    def leading_scheduler(self, draw: random.Random) -> Place:
        """Take the scheduler that fired last, so far as the ledgers say."""
        fired = [event for event in read(self.folder / "ledger") if event["event"] == "fired"]
        for place in self.schedulers:
            if fired and place.name == fired[-1]["who"] and place.name not in self._taken and place.is_ready:
                self._taken.add(place.name)
                return place
        return self.take("scheduler", draw)

    # --- what faults do -----------------------------------------------------------------------------------------------

    def kill(self, place: Place, *, back_after_s: float = 1.0) -> None:
        """SIGKILL, now. The process is started again after a while."""
        place.start_at = time.monotonic() + back_after_s
        if place.process is None:
            return
        self.ledger.write("killed", place=place.name, process=place.pid)
        place.send(signal.SIGKILL)
        place.process.wait()
        place.take_exit()

    def freeze(self, place: Place) -> None:
        """SIGSTOP."""
        if place.process is not None:
            place.send(signal.SIGSTOP)
            place.is_frozen = True
            self.ledger.write("frozen", place=place.name, process=place.pid)

    def thaw(self, place: Place) -> None:
        """SIGCONT."""
        if place.process is not None and place.is_frozen:
            self.ledger.write("thawed", place=place.name, process=place.pid)
            place.send(signal.SIGCONT)
            place.is_frozen = False

    def outage(self, what: str, place: Place | None = None) -> Callable[[], None]:
        """Write that Redis cannot be reached from now on, from one place or from all. Call the answer when it can."""
        key = next(_outages)
        name = None if place is None else place.name
        self.ledger.write("outage", key=key, what=what, place=name, unix=time.time())
        return lambda: self.ledger.write("outage over", key=key, what=what, place=name, unix=time.time())

    def expect(self, is_so: bool, otherwise: str) -> None:
        """Note that something is not as it has to be. It turns the soak red."""
        if not is_so:
            self.ledger.write("unexpected", what=otherwise)

    def slot(self) -> int:
        """Return a slot of the table of effects that no producer uses."""
        self._slots += 1
        return INJECTOR * 1_000_000 + self._slots

    def enqueue(self, signature: Signature[Any], **facts: Any) -> str:
        """Enqueue a task as a producer does, past every relay, and return its id."""
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
        """Enqueue many tasks in one go and return their ids. Unless all are acknowledged, each outcome is unknown."""
        calls = []
        for signature in signatures:
            self._enqueued += 1
            calls.append(signature.using(task_id=f"injected-{self._enqueued}"))
        for call in calls:
            options = call.task.options
            told = {"name": call.task.name, "queue": options.queue, "slot": call.args[0]}
            self.ledger.write("attempt", id=options.task_id, **told)
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
        """Whether Redis was not killed just now."""
        return bool(self.store.server.is_running)

    def takes_writes(self) -> bool:
        """Whether Redis is there, and not full."""
        return self.command("SET", "soak", "", "PX", 1) is not None

    def unfill(self) -> bool:
        """Give Redis its memory back, if it is there to take it."""
        return self.command("CONFIG", "SET", "maxmemory", "0") is not None

    def run_endless_script(self) -> None:
        """Keep Redis busy until the script is killed. The one who sent it never hears of it."""
        with socket.socket(socket.AF_UNIX) as sent:
            sent.connect(str(self.store.server.socket_path))
            sent.sendall(b"EVAL 'while true do end' 0\r\n")

    def failover(self, what: str) -> Callable[[], None]:
        """Write that another server takes over. Call the answer when it has."""
        key = next(_outages)
        self.ledger.write("failover", key=key, what=what)
        return lambda: self.ledger.write("failover over", key=key, what=what)

    def killed_primary(self) -> Callable[[], None]:
        """Write that the primary is about to be killed: nobody is in charge until another takes over."""
        forgotten, reached = self.failover("the primary was killed"), self.outage("the primary was killed")

        def over() -> None:
            reached()
            forgotten()

        return over

    def command(self, *words: str | int) -> Any:
        """Send a command to Redis; None if it is not there to answer, or another fault makes it refuse for now."""
        try:
            return self.client.execute_command(*words)
        except (redis.RedisError, OSError) as error:
            if isinstance(translate(error, "Redis"), BrokerUnavailableError | BrokerFullError):
                return None
            raise

    # --- conducting ---------------------------------------------------------------------------------------------------

    def conduct(self, plan: Plan, faults: dict[int, Fault]) -> None:
        """Carry out a plan. Processes that die meanwhile are started again.

        No fault begins while two others are at work: those that others hold up may last longer than was planned.
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
        """Note processes that have died, and start again what is wanted."""
        now = time.monotonic()
        for place in self.places:
            pid = place.process.pid if place.process is not None else 0
            status = place.take_exit()
            if status is not None:
                self.ledger.write("exited", place=place.name, process=pid, status=status)
                place.start_at = max(place.start_at, now + 0.5)
            place.look()
            if place.process is None and place.wanted and now >= place.start_at and place.starts:
                self.start(place)

    def heal(self) -> None:
        """Take everything back that a fault may have left."""
        for place in self.places:
            self.thaw(place)
            if place.own_relay is not None:
                place.own_relay.forward()
            place.wanted = True
        for held in self.held:
            held.let_go()
        with suppress(TimeoutError):
            until(self.unfill, "Redis has its memory back", timeout_s=STOP_S)

    def stop(self, places: Sequence[Place]) -> None:
        """Stop processes gracefully. What becomes of the others meanwhile is noted as ever."""
        for place in places:
            place.wanted = False
            place.send(signal.SIGTERM)

        def have_ended() -> bool:
            self.supervise()
            return all(place.process is None for place in places)

        until(have_ended, f"{[place.name for place in places]} have stopped", timeout_s=STOP_S)


_outages = itertools.count(1)
