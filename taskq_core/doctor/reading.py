"""Read the facts from Redis, with blocking requests one after the other. Nothing is changed.

If this Redis user lacks a right, this is a fact and not an error: the checks that need the right are skipped. Reading
fails only if Redis cannot be reached or refuses the password.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from taskq_core.app import TaskQ
from taskq_core.broker.operations import actions, diagnosis, limits, presence, services, views
from taskq_core.broker.operations import repair as repair_ops
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.clock import SYSTEM_CLOCK, Clock
from taskq_core.doctor.facts import Damage, Facts, NodeFacts, QueueFacts, Refusal, WrongType
from taskq_core.doctor.keys import Census, KeyKind, Surveyor
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerFullError,
    BrokerReplyError,
    BrokerUnavailableError,
    TaskQError,
)
from taskq_core.inspector import Inspector, WorkerProcess
from taskq_core.repair.reconcile import reconcile, run
from taskq_core.settings import seconds
from taskq_core.tasks.options import task_options
from taskq_core.wire import DEFAULT_QUEUE, QueueKeys

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with the number of checked tasks and the approximate number of all tasks."""

CONFIG = ("appendfsync", "min-replicas-to-write", "save")
"""Configuration parameters that `INFO` does not contain."""
_CLOCK_READS = 3
"""Number of times the server's clock is read. The reading with the shortest round trip is used."""
_PAGE = 500
_QUARANTINED_IDS = 100
_ADDRESS = re.compile(r"^\S+ refused the user or password: ")


def read_facts(
    app: TaskQ, *, clock: Clock = SYSTEM_CLOCK, is_thorough: bool = True, progress: Progress = lambda done, total: None
) -> Facts:
    """Read all facts about the Redis of an application and its queues that the doctor's rules need.

    Args:
        app: The queue application whose Redis is checked.
        clock: The clock of this machine.
        is_thorough: Also check every task and key, in small steps.
        progress: Called with the number of checked tasks, and the approximate number of all tasks.

    Raises:
        BrokerError: Redis cannot be reached, or refuses the password.
    """
    return _Reader(app, clock).read(is_thorough=is_thorough, progress=progress)


def read_nodes(app: TaskQ, *, clock: Clock = SYSTEM_CLOCK) -> list[NodeFacts]:
    """Read the facts about the Redis server, or about each primary of a cluster, by a few commands.

    Raises:
        BrokerError: Redis cannot be reached, or refuses the password.
    """
    return _Reader(app, clock).nodes()


class _Reader:
    def __init__(self, app: TaskQ, clock: Clock) -> None:
        self._app = app
        self._clock = clock
        self._runner = app.runtime.runner
        self._keys = app.runtime.keys
        self._inspector = Inspector(app)
        self._is_complete = True

    def read(self, *, is_thorough: bool, progress: Progress) -> Facts:
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
        sizes: dict[str, int] = {}  # number of tasks of each queue whose tasks can be checked
        for name in names:
            strange = self._strange(self._keys.queue(name))
            wrong_types += strange
            queue = self._queue(name, served)
            queues.append(queue)
            if is_thorough and queue.counts is not None and not strange:
                sizes[name] = sum(queue.counts.sizes.values())
        damages = self._damages(sizes, progress)
        return Facts(
            nodes=nodes,
            refusals=refusals,
            wrong_types=wrong_types,
            queues=[replace(queue, damage=damages.get(queue.name)) for queue in queues],
            is_complete=self._is_complete,
            census=census,
            default_queues=self._app.settings.queues,
            unserved_tasks={
                queue: names
                for queue, names in self._app.task_queues().items()
                if served is not None and queue not in served
            },
            tasks=self._app.task_queues(),
            unscheduled=self._unscheduled(),
            queues_key=self._keys.queues,
        )

    def _unscheduled(self) -> list[str]:
        """Return the ids of the application's periodic tasks if no running scheduler has any of them."""
        # Ignore an invalid setting SCHEDULE, which workers report, and a missing right to read schedulers.
        with suppress(TaskQError):
            ids = [entry.id for entry in self._app.periodic_tasks()]
            if ids and {entry.id for entry in self._inspector.scheduler_entries()}.isdisjoint(ids):
                return ids
        return []

    def _read(self, operation: Operation[T]) -> T | None:
        """Send an operation and return the reply, or None if this Redis user may not run it."""
        found = _allowed(self._runner, operation)
        self._is_complete &= found is not None
        return found

    # --- servers ------------------------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeFacts]:
        """Read the facts about each Redis server."""
        nodes = []
        for runner in self._runner.nodes():
            with closing(runner):
                self._connect(runner)
                nodes.append(self._node(runner))
        return nodes

    def _connect(self, runner: SyncRunner) -> None:
        # Use TIME instead of PING, because a server that cannot write to its disk refuses PING.
        patience_s = seconds("ENQUEUE_TIMEOUT", self._app.settings.enqueue_timeout)
        try:
            runner.run(diagnosis.read_time(), patience_s=patience_s)
        except BrokerAuthenticationError as error:
            # Another check reports a missing right to run TIME. All other errors here mean a wrong password.
            if "permission" not in str(error):
                raise

    def _node(self, runner: SyncRunner) -> NodeFacts:
        config: dict[str, str] | None = {}
        for name in CONFIG:
            found = _allowed(runner, diagnosis.read_config(name))
            config = None if config is None or found is None else config | found
        skew_s, error_s = self._skew(runner)
        options = (task_options(self._app.settings.defaults), *(task.options for task in self._app.tasks.values()))
        return NodeFacts(
            address=runner.endpoint.address,
            info=_allowed(runner, presence.server_info()),
            config=config,
            skew_s=skew_s,
            skew_error_s=error_s,
            wanted_replicas=max(int(each.replicated) for each in options),
        )

    def _skew(self, runner: SyncRunner) -> tuple[float | None, float]:
        best = (0.0, float("inf"))
        for _ in range(_CLOCK_READS):
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
                    self._try(refused, action, partial(runner.run, operation))
        if "'eval'" in refused.get("EVALSHA", ""):
            del refused["EVALSHA"]  # the server accepted EVALSHA, and refused the EVAL sent after it
        can_run_scripts = not {"EVAL", "EVALSHA"} & refused.keys()
        own = _pattern(queue.own_prefix, queue.name)
        # Try each key pattern separately, so that the finding names the pattern that the user may not use.
        for pattern, key in ((_pattern(queue.prefix, queue.name), f"{queue.prefix}absent"), (own, queue.absent)):
            if can_run_scripts:
                attempt = partial(self._runner.run, diagnosis.try_commands(key, queue.done))
                answers = self._try(refused, "EVALSHA", attempt, keys=pattern) or {}
                for command, answer in answers.items():
                    refused.setdefault(_action(command, answer, keys=pattern, channels=own), answer)
        self._try(refused, "BLPOP", partial(self._runner.run, diagnosis.try_wait(queue.absent)), keys=own)
        self._try(refused, "BLMOVE", partial(self._runner.run, diagnosis.try_watch(queue.absent)), keys=own)
        for channel in (self._keys.cancel, queue.done):
            pattern = _pattern(channel, queue.name)
            self._try(refused, "SUBSCRIBE", partial(self._listen, channel), channels=pattern)
        return [Refusal(action=action, answer=answer) for action, answer in refused.items()]

    def _listen(self, channel: str) -> None:
        self._runner.subscribe(channel).close()

    def _try(
        self, refused: dict[str, str], action: str, act: Callable[[], T], *, keys: str = "", channels: str = ""
    ) -> T | None:
        """Call a function and return its result.

        If the server refuses its request, add the missing right to `refused`.
        """
        try:
            return act()
        except BrokerAuthenticationError as error:
            answer = _ADDRESS.sub("", str(error))
            refused.setdefault(_action(action, answer, keys=keys, channels=channels), answer)
        except (BrokerReplyError, BrokerFullError):
            pass  # the command failed for another reason than a missing right
        except BrokerUnavailableError as error:
            if error.may_have_happened:
                raise
            # Other checks report a server that is a replica or cannot write to its disk.
        return None

    # --- queues -------------------------------------------------------------------------------------------------------

    def _global_types(self) -> Iterable[WrongType]:
        keys = self._keys
        for key in (keys.queues, keys.servers, keys.workers, keys.schedulers):
            found = self._read(diagnosis.read_type(key))
            if found not in (None, "none", "set" if key == keys.queues else "zset"):
                yield WrongType(key=key, found=str(found))

    def _strange(self, queue: QueueKeys) -> list[WrongType]:
        try:
            probed = self._read(repair_ops.probe(queue))
        except BrokerUnavailableError as error:
            if error.may_have_happened:
                raise
            self._is_complete = False
            return []  # another check reports that the server refuses writes
        strange = {} if probed is None else probed.strange
        return [WrongType(key=key, found=kind, queue=queue.name) for key, kind in strange.items()]

    def _queues(self, wrong_types: Iterable[WrongType]) -> list[str]:
        if any(wrong.key == self._keys.queues for wrong in wrong_types):
            self._is_complete = False
            return []
        return self._read(views.list_queues(self._keys.queues)) or []

    def _served(self) -> dict[str, list[WorkerProcess]] | None:
        """Return the running workers by the queues that they serve; None if this user may not read them."""
        try:
            found: dict[str, list[WorkerProcess]] = {}
            for server in self._inspector.servers():
                for name in server.queues:
                    found.setdefault(name, []).append(server)
            return found
        except (BrokerAuthenticationError, BrokerReplyError):
            self._is_complete = False
            return None

    def _queue(self, name: str, served: Mapping[str, Sequence[WorkerProcess]] | None) -> QueueFacts:
        keys = self._keys.queue(name)
        sizes: dict[str, int] = {}
        try:
            counts = self._read(views.count_tasks(keys))
            quarantined = self._read(diagnosis.count_members(keys.quarantine)) or 0
            if quarantined:
                ids = self._read(diagnosis.read_index(keys.quarantine, skip=0, count=_QUARANTINED_IDS)) or []
                sizes = {each: self._read(diagnosis.message_size(keys.quarantined(each))) or 0 for each in ids}
            workflows = self._read(diagnosis.count_members(keys.workflows_running)) or 0
        except BrokerReplyError:  # another check reports a key of the wrong type
            self._is_complete = False
            counts, quarantined, workflows = None, 0, 0
        limit_workers = self._read(limits.list_limit_workers(keys)) if self._read(limits.has_limits(keys)) else None
        servers = served.get(name, ()) if served else ()
        return QueueFacts(
            name=name,
            counts=counts,
            is_served=served is None or name in served,
            quarantined=quarantined,
            quarantined_sizes=sizes,
            is_half_removed=self._read(actions.is_half_removed(keys)) is True,
            damage=None,
            unlimited=[
                f"{each.host}:{each.pid}"
                for each in servers
                if limit_workers is not None and each.id.replace("-", "")[:16] not in limit_workers
            ],
            has_limit_worker=limit_workers is None or bool(limit_workers),
            workflows=workflows,
            has_taskq_worker=self._read(services.has_worker(keys)) is not False,
        )

    # --- tasks and keys -----------------------------------------------------------------------------------------------

    def _damages(self, sizes: Mapping[str, int], progress: Progress) -> dict[str, Damage | None]:
        total, before, found = sum(sizes.values()), 0, {}
        for name, size in sizes.items():

            def report_scanned(scanned: int, _: int, before: int = before) -> None:
                progress(min(before + scanned, total), total)

            found[name] = self._damage(self._keys.queue(name), report_scanned)
            before += size
        return found

    def _damage(self, queue: QueueKeys, progress: Progress) -> Damage | None:
        try:
            report = run(reconcile(queue, repair=False, progress=progress), self._runner.run)
        except (BrokerAuthenticationError, BrokerUnavailableError) as error:
            if isinstance(error, BrokerUnavailableError) and error.may_have_happened:
                raise
            return None  # other checks report that the server refuses writes or the user lacks a right
        return Damage(findings=report.findings)

    def _census(self, wrong_types: Sequence[WrongType]) -> Census | None:
        """Check all keys of taskq and Asynq. Return None if this Redis user may not read them."""
        surveyor = Surveyor(self._keys)
        for runner in self._runner.nodes():
            with closing(runner):
                for pattern in surveyor.patterns:
                    cursor = ""
                    while cursor != "0":
                        found = _allowed(runner, diagnosis.survey(pattern, cursor=cursor or "0"))
                        if found is None:
                            self._is_complete = False
                            return None
                        surveyor.check(found)
                        cursor = found.cursor
        # Read the list of queues last. A queue is listed before its first task is stored, so no queue is missing then.
        return surveyor.finish(self._queues(wrong_types))


def _allowed(runner: SyncRunner, operation: Operation[T]) -> T | None:
    """Send an operation and return the reply, or None if this Redis user may not run it."""
    try:
        return runner.run(operation)
    except BrokerAuthenticationError:
        return None
    except BrokerReplyError as error:
        if "unknown command" in str(error):  # a managed Redis service may have renamed or removed the command
            return None
        raise


def _action(command: str, answer: str, *, keys: str = "", channels: str = "") -> str:
    """Return what an error of the server forbids: a key pattern, a channel pattern, or the command."""
    if keys and re.search(r"\bkeys?\b", answer):
        return f"keys {keys}"
    if channels and re.search(r"\bchannels?\b", answer):
        return f"channels {channels}"
    return command


def _pattern(key: str, queue: str) -> str:
    """Return a pattern that matches the keys or channels of this kind for all queues."""
    head, tag, _ = key.partition(f"{{{queue}}}")
    return f"{head}*" if tag else key
