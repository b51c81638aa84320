"""Run one soak: start processes, inject faults, undo them, wait until the queues are idle, check the invariants.

This module is the conductor, the process that starts all others.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import redis

from taskq_core.errors import WorkflowNotFoundError
from taskq_core.scheduler.ticker import tick_task_id
from tests.soak import dump
from tests.soak.effects import Effects
from tests.soak.evidence import Evidence
from tests.soak.faults import FAULTS, NAMES
from tests.soak.incidents import read_incidents
from tests.soak.invariants import check_invariants
from tests.soak.ledger import History, merge, read
from tests.soak.load import CANARY
from tests.soak.monitor import Monitor
from tests.soak.profiles import Profile
from tests.soak.program import BEAT_ENTRY, DAMAGED, QUEUES, app
from tests.soak.remains import read_remains
from tests.soak.report import as_json, keep, text
from tests.soak.schedule import Plan
from tests.soak.stage import Stage
from tests.soak.stores import raw_client, retry_while_unavailable
from tests.soak.timeline import draw

CALM_CHECKS = 3
"""How many consecutive checks must find no work before the queues count as idle."""
UNFINISHED = ("wf-running", "wf-out", "wf-steps", "letters", "lim:due")
"""Sorted sets of unfinished work: running workflows, steps to enqueue, dead letters, tasks that wait for a limit."""


def soak(profile: Profile, plan: Plan, folder: Path, *, everything: bool = False) -> dict[str, Any]:
    """Run a plan, write the report into the folder and return it. With `everything`, keep all ledgers as well."""
    began = time.monotonic()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with Stage(profile, plan.seed, folder) as stage:
        version = raw_client(stage.store.servers[0]).info("server")["redis_version"]
        stage.ledger.write("clock", unix=time.time())
        with Monitor(stage):
            stage.start_producers()
            stage.conduct(plan, FAULTS)
            stage.heal()
            stage.wait_until_ready()  # a process that is still starting does not handle SIGTERM
            stage.stop(stage.producers)
            stage.stop(stage.schedulers)
            rest_s = wait_for_rest(stage)
        queues = retry_while_unavailable(
            lambda: {name: dump.read_queue(stage.client, stage.keys(name)) for name in QUEUES}
        )
        remains = retry_while_unavailable(
            lambda: {name: read_remains(stage.client, stage.keys(name), time.time()) for name in QUEUES}
        )
        workflows = retry_while_unavailable(lambda: states_of_workflows(merge(read(folder / "ledger"))))
        stage.wait_until_ready()
        tasks = tuple(stage.keys(name).task_prefix for name in QUEUES)
        found = retry_while_unavailable(lambda: dump.canaries(stage.client, CANARY, skip=tasks))
        for place in stage.workers:
            pid = place.process.pid if place.process is not None else 0
            stage.ledger.write("terminated", place=place.name, process=pid, expects="idle")
        stage.stop(stage.workers)
    found += [str(file.name) for file in (folder / "logs").iterdir() if CANARY in file.read_text(errors="replace")]

    history = merge(read(folder / "ledger"))
    effects = Effects(folder / "effects.table")
    evidence = Evidence(
        profile=profile,
        history=history,
        incidents=read_incidents(history.events, profile.leases),
        queues=queues,
        effects=effects.read(task.slot for task in history.tasks.values() if task.slot is not None),
        max_retry={name: task.options.max_retry for name, task in app.tasks.items()},
        canaries=found,
        workflows=workflows,
        remains=remains,
        beats=expected_beats(history),
        possible_beats=possible_beats(history),
        damaged_queue=DAMAGED,
    )
    effects.close()
    verdicts = check_invariants(evidence)
    facts = {"redis": version, "load_s": plan.load_s, "rest_s": round(rest_s, 1)}
    report = as_json(plan, evidence, verdicts, facts | {"wall_s": round(time.monotonic() - began, 1)})
    (folder / "timeline.svg").write_text(draw(history.events, plan, NAMES))
    keep(report, folder, everything=everything)
    print(text(report), flush=True)
    return report


def wait_for_rest(stage: Stage) -> float:
    """Wait until all tasks and workflows have ended and all archive handlers have run. Return the seconds this took.

    After a timeout it returns as well: the invariants then report the unfinished tasks.
    """
    began = time.monotonic()
    calm = 0
    while calm < CALM_CHECKS and time.monotonic() - began < stage.profile.rest_s:
        stage.supervise()
        left = 0
        for name in QUEUES:
            keys = stage.keys(name)
            for key, count in ((keys.pending, "LLEN"), (keys.active, "LLEN"), (keys.lease, "ZCARD")):
                left += size(stage, count, key)
            own = keys.own_prefix
            for key in (keys.scheduled, keys.retry, *(own + each for each in UNFINISHED)):
                left += size(stage, "ZCARD", key)
            left += size(stage, "HLEN", f"{own}wf-notes")
        calm = calm + 1 if left == 0 else 0
        time.sleep(0.3)
    return time.monotonic() - began


def size(stage: Stage, count: str, key: str) -> int:
    """Return the number of members of a list, sorted set or hash.

    Returns 1 if the key has the wrong type, because its repair is still to come, and if Redis does not answer.
    """
    try:
        found = stage.command(count, key)
    except redis.ResponseError:
        found = None
    return 1 if found is None else int(found)


def states_of_workflows(history: History) -> dict[str, str]:
    """Return the state of each workflow by id, "" if the workflow does not exist any more."""
    found = {}
    for flow in history.flows.values():
        if flow.answer == "refused":
            continue
        try:
            found[flow.id] = app.workflow(flow.id, flow.queue).refresh().state.value
        except WorkflowNotFoundError:
            found[flow.id] = ""
    return found


def expected_beats(history: History) -> frozenset[str]:
    """Return the task ids that the entry with a firing each second must have created.

    They are those of all seconds from the first recorded firing to the last.
    """
    seconds = [int(event["at"]) for events in history.fired.values() for event in events]
    if not seconds:
        return frozenset()
    return frozenset(tick_task_id(BEAT_ENTRY, "beat", at_s) for at_s in range(min(seconds), max(seconds) + 1))


def possible_beats(history: History) -> frozenset[str]:
    """Return the task ids of all seconds of the run. Some firings arrived although the scheduler got no response."""
    unix_s = next(event["unix"] - event["t"] for event in history.events if event["event"] == "clock")
    first_s, last_s = (int(history.events[end]["t"] + unix_s) for end in (0, -1))
    return frozenset(tick_task_id(BEAT_ENTRY, "beat", at_s) for at_s in range(first_s, last_s + 1))
