"""Ask the store for the facts, with one blocking request after the other. Nothing is changed.

What this user may not ask is a fact as well, not an error: a check that needs it is left out. Only a broker that cannot
be reached at all, or refuses the password, ends the reading.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import TypeVar

from taskq_core.app import TaskQ
from taskq_core.broker.operations import actions, diagnosis, limits, presence, services, upkeep, views
from taskq_core.broker.operations import repair as repair_ops
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import RequestPlan, ask, run_plan
from taskq_core.broker.sync import SyncRunner
from taskq_core.clock import SYSTEM_CLOCK, Clock
from taskq_core.doctor.facts import Damage, Facts, NodeFacts, QueueFacts, Refusal, WrongType
from taskq_core.doctor.keys import Census, KeyDamage, KeyKind, Surveyor
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerFullError,
    BrokerReplyError,
    BrokerUnavailableError,
    TaskQError,
)
from taskq_core.inspector import Inspector, WorkerProcess
from taskq_core.repair.reconcile import FindingKind, reconcile, run
from taskq_core.settings import seconds
from taskq_core.tasks.options import task_options
from taskq_core.wire import DEFAULT_QUEUE, QueueKeys, TaskState

T = TypeVar("T")

CONFIG = ("appendfsync", "min-replicas-to-write", "save")
"""Parameters that INFO does not tell."""
_LOOKS = 3
"""Times the clock is asked; the quickest answer says most."""
_PAGE = 500
_LATER = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
_NAMED = 100
"""Most quarantined tasks that are named."""
_ADDRESS = re.compile(r"^\S+ refused the user or password: ")


def read_facts(
    app: TaskQ,
    *,
    clock: Clock = SYSTEM_CLOCK,
    is_thorough: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Facts:
    """Ask for all facts.

    Args:
        app: The queue application whose broker is looked at.
        clock: The clock of this machine.
        is_thorough: Also look at every task, in small steps, for records that contradict each other.
        progress: Called with the number of tasks looked at, and about how many there are.

    Raises:
        BrokerError: The broker cannot be reached, or refuses the password.
    """
    return _Reader(app, clock).read(is_thorough=is_thorough, progress=progress or (lambda done, total: None))


def read_nodes(app: TaskQ, *, clock: Clock = SYSTEM_CLOCK) -> list[NodeFacts]:
    """Ask what the servers themselves say: one, or the primaries of a cluster. A few commands each.

    Raises:
        BrokerError: The broker cannot be reached, or refuses the password.
    """
    return _Reader(app, clock).nodes()


class _Reader:
    def __init__(self, app: TaskQ, clock: Clock) -> None:
        self._runner = app.runtime.runner
        self._keys = app.runtime.keys
        self._inspector = Inspector(app)
        self._patience_s = seconds("ENQUEUE_TIMEOUT", app.settings.enqueue_timeout)
        self._clock = clock
        self._app = app
        defaults = task_options(app.settings.defaults)
        options = (defaults, *[task.options for task in app.tasks.values()])
        self._wanted_replicas = max(int(each.replicated) for each in options)
        self._is_complete = True

    def nodes(self) -> list[NodeFacts]:
        nodes = []
        for runner in self._runner.nodes():
            with closing(runner):
                self._meet(runner)
                nodes.append(self._node(runner))
        return nodes

    def read(self, *, is_thorough: bool, progress: Callable[[int, int], None]) -> Facts:
        nodes = self.nodes()
        wrong_types = list(self._global_types())
        names = self._queues(wrong_types)
        refusals = self._refusals(self._keys.queue(names[0] if names else DEFAULT_QUEUE))
        served = self._served()
        census = self._census(wrong_types) if is_thorough else None
        if census is not None:
            unlisted = {each.queue for each in census.damage if each.kind is KeyKind.UNREGISTERED_QUEUE}
            names = sorted({*names, *unlisted, *census.removed})
        queues: list[QueueFacts] = []
        sizes: dict[str, int] = {}  # of the queues that can be gone through
        for name in names:
            strange = self._strange(self._keys.queue(name))
            wrong_types += strange
            queue, size = self._queue(name, served)
            queues.append(queue)
            if is_thorough and size is not None and not strange:
                sizes[name] = size
        damages = self._damages(sizes, progress)
        queues = [replace(queue, damage=damages.get(queue.name)) for queue in queues]
        return Facts(
            nodes=nodes,
            refusals=refusals,
            wrong_types=wrong_types,
            queues=queues,
            is_complete=self._is_complete,
            census=census,
            unserved_tasks={
                queue: names
                for queue, names in self._app.task_queues().items()
                if served is not None and queue not in served
            },
            unscheduled=self._unscheduled(),
        )

    def _unscheduled(self) -> list[str]:
        """Return the ids of the application's periodic tasks if no running scheduler has any of them."""
        with suppress(TaskQError):  # SCHEDULE is not usable, which workers refuse, or this user may not ask
            ids = [entry.id for entry in self._app.periodic_tasks()]
            if ids and {entry.id for entry in self._inspector.scheduler_entries()}.isdisjoint(ids):
                return ids
        return []

    def _look(self, operation: Operation[T]) -> T | None:
        found = _allowed(self._runner, operation)
        self._is_complete &= found is not None
        return found

    # --- servers ------------------------------------------------------------------------------------------------------

    def _meet(self, runner: SyncRunner) -> None:
        # Not PING, which a server that cannot write to its disk refuses.
        try:
            runner.run(diagnosis.read_time(), patience_s=self._patience_s)
        except BrokerAuthenticationError as error:
            if "permission" not in str(error):  # a user who may do little has given the right password
                raise

    def _node(self, runner: SyncRunner) -> NodeFacts:
        config: dict[str, str] | None = {}
        for name in CONFIG:
            found = _allowed(runner, diagnosis.read_config(name))
            config = None if config is None or found is None else config | found
        skew_s, error_s = self._skew(runner)
        return NodeFacts(
            address=runner.endpoint.address,
            info=_allowed(runner, presence.server_info()),
            config=config,
            skew_s=skew_s,
            skew_error_s=error_s,
            wanted_replicas=self._wanted_replicas,
        )

    def _skew(self, runner: SyncRunner) -> tuple[float | None, float]:
        best = (0.0, float("inf"))
        for _ in range(_LOOKS):
            asked, before = self._clock.time(), self._clock.monotonic()
            theirs = _allowed(runner, diagnosis.read_time())
            if theirs is None:
                return None, 0.0
            half = (self._clock.monotonic() - before) / 2
            if half < best[1]:
                best = (theirs - (asked + half), half)
        return best

    # --- rights -------------------------------------------------------------------------------------------------------

    def _refusals(self, queue: QueueKeys) -> list[Refusal]:
        refused: dict[str, str] = {}
        for runner in self._runner.nodes()[:1]:
            with closing(runner):
                for action, operation in (
                    ("EVAL", diagnosis.try_eval()),
                    ("EVALSHA", diagnosis.try_evalsha()),
                    ("SCRIPT|EXISTS", diagnosis.try_script()),
                ):
                    self._try(refused, action, operation, runner=runner)
        if "'eval'" in refused.get("EVALSHA", ""):
            del refused["EVALSHA"]  # it was allowed; the script was not known, and its text was refused
        can_run_scripts = not {"EVAL", "EVALSHA"} & refused.keys()
        own = _pattern(queue.own_prefix, queue.name)
        # Each pattern on its own, so that the one that is missing is named.
        for pattern, key in ((_pattern(queue.prefix, queue.name), f"{queue.prefix}absent"), (own, queue.absent)):
            if can_run_scripts:
                answers = self._try(refused, "EVALSHA", diagnosis.try_commands(key, queue.done), keys=pattern) or {}
                for command, answer in answers.items():
                    refused.setdefault(_action(command, answer, keys=pattern, channels=own), answer)
        self._try(refused, "BLPOP", diagnosis.try_wait(queue.absent), keys=own)
        self._try(refused, "BLMOVE", diagnosis.try_watch(queue.absent), keys=own)
        for channel in (self._keys.cancel, queue.done):
            self._try_listening(refused, channel, _pattern(channel, queue.name))
        return [Refusal(action=action, answer=answer) for action, answer in refused.items()]

    def _try_listening(self, refused: dict[str, str], channel: str, pattern: str) -> None:
        try:
            self._runner.subscribe(channel).close()
        except BrokerAuthenticationError as error:
            answer = _answer(error)
            refused.setdefault(_action("SUBSCRIBE", answer, channels=pattern), answer)
        except BrokerFullError:
            pass  # it was allowed, and there is no memory for it

    def _try(
        self,
        refused: dict[str, str],
        action: str,
        operation: Operation[T],
        *,
        runner: SyncRunner | None = None,
        keys: str = "",
    ) -> T | None:
        try:
            return (runner or self._runner).run(operation)
        except BrokerAuthenticationError as error:
            answer = _answer(error)
            refused.setdefault(_action(action, answer, keys=keys), answer)
        except (BrokerReplyError, BrokerFullError):
            pass  # it was allowed, and answered with an error of its own
        except BrokerUnavailableError as error:
            if error.may_have_happened:
                raise
            # A replica, or a server that cannot write to its disk: other checks tell.
        return None

    # --- queues -------------------------------------------------------------------------------------------------------

    def _global_types(self) -> Iterable[WrongType]:
        keys = self._keys
        for key, expected in (
            (keys.queues, "set"),
            (keys.servers, "zset"),
            (keys.workers, "zset"),
            (keys.schedulers, "zset"),
        ):
            found = self._look(diagnosis.read_type(key))
            if found not in (None, "none", expected):
                yield WrongType(key=key, found=str(found))

    def _strange(self, queue: QueueKeys) -> list[WrongType]:
        try:
            probed = self._look(repair_ops.probe(queue))
        except BrokerUnavailableError as error:
            if error.may_have_happened:
                raise
            self._is_complete = False
            return []  # it refuses writes, and other checks tell
        return (
            []
            if probed is None
            else [WrongType(key=key, found=kind, queue=queue.name) for key, kind in probed.strange.items()]
        )

    def _queues(self, wrong_types: Iterable[WrongType]) -> list[str]:
        if any(wrong.key == self._keys.queues for wrong in wrong_types):
            self._is_complete = False
            return []
        return self._look(views.list_queues(self._keys.queues)) or []

    def _served(self) -> dict[str, list[WorkerProcess]] | None:
        """Return the running workers by queue; None where this user may not."""
        try:
            found: dict[str, list[WorkerProcess]] = {}
            for server in self._inspector.servers():
                for name in server.queues:
                    found.setdefault(name, []).append(server)
            return found
        except (BrokerAuthenticationError, BrokerReplyError):
            self._is_complete = False
            return None

    def _queue(self, name: str, served: Mapping[str, Sequence[WorkerProcess]] | None) -> tuple[QueueFacts, int | None]:
        """Return how a queue stands, and how many tasks it has; None where they cannot be counted."""
        keys = self._keys.queue(name)
        try:
            counts = self._look(views.count_tasks(keys))
            quarantined = self._look(diagnosis.count_members(keys.quarantine))
            workflows = self._look(diagnosis.count_members(keys.workflows_running))
        except BrokerReplyError:  # a key of the wrong type, which is told apart
            self._is_complete = False
            counts, quarantined, workflows = None, 0, 0
        keepers = self._keepers(keys)
        is_half_removed = self._look(actions.is_half_removed(keys))
        facts = QueueFacts(
            name=name,
            pending=None if counts is None else counts.sizes[TaskState.PENDING],
            later=0 if counts is None else sum(counts.sizes[state] for state in _LATER),
            is_paused=counts is not None and counts.is_paused,
            is_served=served is None or name in served,
            quarantined=quarantined or 0,
            is_half_removed=is_half_removed is True,
            quarantined_ids=self._members(keys.quarantine, 0)[:_NAMED] if quarantined else (),
            damage=None,
            unlimited=self._unlimited(keepers, served.get(name, ()) if served else ()),
            limited=0 if counts is None else counts.limited,
            has_keeper=keepers is None or bool(keepers),
            workflows=workflows or 0,
            has_taskq_worker=self._look(services.has_worker(keys)) is not False,
        )
        return facts, None if counts is None else sum(counts.sizes.values())

    def _keepers(self, queue: QueueKeys) -> set[str] | None:
        """Return the workers that keep the limits of a queue; None if it has none, or this user may not ask."""
        keepers = self._look(limits.list_keepers(queue)) if self._look(limits.has_limits(queue)) else None
        return None if keepers is None else set(keepers)

    def _unlimited(self, keepers: set[str] | None, servers: Sequence[WorkerProcess]) -> list[str]:
        """Return the workers of a queue with limits that have not told lately that they keep them."""
        if keepers is None:
            return []
        return [f"{each.host}:{each.pid}" for each in servers if each.id.replace("-", "")[:16] not in keepers]

    def _damages(self, sizes: Mapping[str, int], progress: Callable[[int, int], None]) -> dict[str, Damage | None]:
        total, before, found = sum(sizes.values()), 0, {}
        for name, size in sizes.items():

            def told(scanned: int, _: int, before: int = before) -> None:
                progress(min(before + scanned, total), total)

            found[name] = self._damage(self._keys.queue(name), told)
            before += size
        return found

    def _damage(self, queue: QueueKeys, progress: Callable[[int, int], None]) -> Damage | None:
        try:
            report = run(reconcile(queue, repair=False, progress=progress), self._runner.run)
        except (BrokerAuthenticationError, BrokerUnavailableError) as error:
            if isinstance(error, BrokerUnavailableError) and error.may_have_happened:
                raise
            return None  # it refuses writes, or this user may not; other checks tell
        moving = run_plan(count_moving(queue), self._runner.run)
        others = [each for each in report.findings if each.kind is not FindingKind.LOCK_WITHOUT_TASK]  # the census's
        return Damage(findings=others, moving=moving)

    # --- single keys --------------------------------------------------------------------------------------------------

    def _census(self, wrong_types: Sequence[WrongType]) -> Census | None:
        """Look at all keys; None where this user may not."""
        surveyor = Surveyor(self._keys, at_ns=int(self._clock.time() * 1e9))
        for runner in self._runner.nodes():
            with closing(runner):
                for pattern in surveyor.patterns:
                    cursor = ""
                    while cursor != "0":
                        found = _allowed(runner, upkeep.survey(pattern, cursor=cursor or "0"))
                        if found is None:
                            self._is_complete = False
                            return None
                        surveyor.note(found)
                        cursor = found.cursor
        census = surveyor.finish(self._queues(wrong_types))  # read after it: a queue is listed before it has a task
        census.read_at = self._clock.monotonic()
        for index in (self._keys.servers, self._keys.workers, self._keys.schedulers):
            census.damage += self._stale(index)
        return census

    def _stale(self, index: str) -> Iterable[KeyDamage]:
        """Yield members of an index of the living that tell nothing of themselves."""
        skip = 0
        while page := self._members(index, skip):
            skip += len(page)
            for member in page:
                # A worker that runs nothing has no key of running tasks.
                shown = (
                    member.replace(self._keys.workers, self._keys.servers, 1) if index == self._keys.workers else member
                )
                if self._look(upkeep.is_there(shown)) is False:
                    yield KeyDamage(
                        kind=KeyKind.STALE_PRESENCE,
                        queue="",
                        key=member,
                        detail=f"it is listed in {index} and not there: it is taken off the list",
                        index=index,
                    )

    def _members(self, index: str, skip: int) -> list[str]:
        try:
            return self._look(upkeep.read_index(index, skip=skip, count=_PAGE)) or []
        except BrokerReplyError:  # a key of the wrong type, which is told apart
            return []


def count_moving(queue: QueueKeys) -> RequestPlan[int]:
    """Count the tasks on their way to another queue that nobody carries on."""
    now_s = (yield from ask(actions.move_out(queue, (), token="", target=""))).now_s
    count = 0
    while True:
        step = actions.list_moving(queue, before_s=now_s - actions.MOVE_S, skip=count, count=_PAGE)
        page = yield from ask(step)
        count += len(page)
        if len(page) < _PAGE:
            return count


def _allowed(runner: SyncRunner, operation: Operation[T]) -> T | None:
    """Return an answer, or None where this user may not ask."""
    try:
        return runner.run(operation)
    except BrokerAuthenticationError:
        return None
    except BrokerReplyError as error:
        if "unknown command" in str(error):  # renamed or taken away, as managed services do
            return None
        raise


def _answer(error: BrokerAuthenticationError) -> str:
    return _ADDRESS.sub("", str(error))


def _action(command: str, answer: str, *, keys: str = "", channels: str = "") -> str:
    """Return what was refused: some keys or channels, or else the command."""
    if keys and re.search(r"\bkeys?\b", answer):
        return f"keys {keys}"
    if channels and re.search(r"\bchannels?\b", answer):
        return f"channels {channels}"
    return command


def _pattern(key: str, queue: str) -> str:
    """Return the pattern of keys or channels that a key of one queue stands for."""
    head, tag, _ = key.partition(f"{{{queue}}}")
    return f"{head}*" if tag else key
