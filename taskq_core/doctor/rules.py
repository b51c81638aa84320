"""Decide what is wrong with Redis and its queues, and what to do about it: pure functions from facts to findings.

A red finding means that tasks can be lost or that nothing works. A yellow finding needs attention, but tasks run. A
rule yields its problems. If it yields none and its facts are complete, the report contains a green finding.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from taskq_core.doctor.facts import Facts, NodeFacts
from taskq_core.doctor.findings import Finding, Findings, Level, green, red, yellow
from taskq_core.doctor.node_rules import check_node
from taskq_core.errors import BrokerAuthenticationError, BrokerError
from taskq_core.wire import TaskState

NOT_NEEDED = ("SCRIPT|EXISTS",)
"""Commands that only tools use. If the right to such a command is missing, the finding is yellow instead of red."""
_LATER = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)


def diagnose(facts: Facts) -> list[Finding]:
    """Return the findings of all rules, the worst first."""
    found = diagnose_nodes(facts.nodes)
    for rule in RULES:
        problems = list(rule.find(facts))
        found += problems
        if rule.fine and not problems and rule.is_known(facts):
            found.append(green(rule.check, "", rule.fine))
    return _worst_first(found)


def diagnose_nodes(nodes: Iterable[NodeFacts]) -> list[Finding]:
    """Return the findings of the rules about servers, the worst first."""
    return _worst_first([finding for node in nodes for finding in check_node(node)])


def _worst_first(findings: list[Finding]) -> list[Finding]:
    order = list(Level)
    return sorted(findings, key=lambda finding: order.index(finding.level))


def unreachable(error: BrokerError) -> Finding:
    """Return the finding for a Redis that cannot be reached, or that refuses the password."""
    if isinstance(error, BrokerAuthenticationError):
        advice = "give user and password in TASKQ_URL or in Django TASKQ['URL'], or with --username and --ask-password"
    else:
        advice = (
            "check that the server runs there and that this machine can reach it; --url, TASKQ_URL or in Django "
            "TASKQ['URL'] sets its address"
        )
    return red("connection", "", str(error), advice)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _check_rights(facts: Facts) -> Findings:
    for refusal in facts.refusals:
        kind, _, name = refusal.action.partition(" ")
        rule = {"keys": f"~{name}", "channels": f"&{name}"}.get(kind, f"+{refusal.action.lower()}")
        advice = f"ACL SETUSER ... {rule}"
        if refusal.action in NOT_NEEDED:
            message = f"this user lacks a right that only tools need: {refusal.answer}"
            yield yellow("rights", refusal.action, message, advice)
        else:
            yield red("rights", refusal.action, f"this user lacks a right: {refusal.answer}", advice)


def _check_types(facts: Facts) -> Findings:
    for wrong in facts.wrong_types:
        message = f"this key is a {wrong.found}, a type that taskq never writes here: another program uses the key"
        if wrong.key.endswith(":paused"):
            advice = f"the key pauses the queue: taskq queue resume {shlex.quote(wrong.queue)} deletes it"
        elif wrong.queue:
            advice = "taskq doctor --fix moves it aside; find out who wrote it, or give taskq another --prefix"
        else:
            advice = "find out who wrote it and delete it, or give taskq another --prefix"
        yield red("types", wrong.key, message, advice)


def _check_served(facts: Facts) -> Findings:
    unserved = dict(facts.unserved_tasks)
    for queue in facts.queues:
        counts = queue.counts
        if counts is None:
            continue
        pending = counts.sizes[TaskState.PENDING]
        waiting = pending + sum(counts.sizes[state] for state in _LATER)
        if counts.is_paused and pending:
            advice = f"taskq queue resume {shlex.quote(queue.name)}"
            yield yellow("served", queue.name, f"waiting in a paused queue: {pending}", advice)
        elif waiting and not queue.is_served:
            unserved.pop(queue.name, None)
            yield _unserved(facts, queue.name, f"waiting, while no running worker serves this queue: {waiting}")
        elif (
            facts.is_complete
            and queue.is_served
            and not queue.has_taskq_worker
            and (names := facts.tasks.get(queue.name))
        ):
            yield yellow(
                "served",
                queue.name,
                f"only Go workers serve this queue, which {_users(names)}; there, these tasks fail with 'handler not "
                "found'",
                f"start a taskq worker with --queues {shlex.quote(queue.name)}, and let Go workers serve other queues",
            )
    for name, tasks in sorted(unserved.items()):
        yield _unserved(facts, name, f"no running worker serves this queue, which {_users(tasks)}")


def _users(tasks: Sequence[str]) -> str:
    return f"task {tasks[0]!r} and {len(tasks) - 1} more use" if len(tasks) > 1 else f"task {tasks[0]!r} uses"


def _unserved(facts: Facts, queue: str, message: str) -> Finding:
    advice = f"start a worker with --queues {shlex.quote(queue)}, or add the queue to QUEUES"
    if queue in facts.default_queues:
        advice = "start a worker; without --queues, it serves this queue"
    return yellow("served", queue, message, advice)


def _check_scheduler(facts: Facts) -> Findings:
    if facts.unscheduled:
        message = f"no running scheduler has the periodic tasks of this application: {_some(facts.unscheduled)}"
        yield yellow("scheduler", "", message, "start a worker without --no-scheduler, or taskq scheduler")


def _check_limits(facts: Facts) -> Findings:
    for queue in facts.queues:
        name = shlex.quote(queue.name)
        limited = 0 if queue.counts is None else queue.counts.limited
        if limited and not queue.has_limit_worker:
            yield yellow(
                "limits",
                queue.name,
                f"waiting for a limit, while no worker that keeps limits serves this queue: {limited}; "
                "nothing starts them",
                f"start a taskq worker with --queues {name}; or enqueue without limits, and start the waiting tasks "
                f"with taskq task run --queue {name} --id ID",
            )
        elif queue.unlimited:
            yield yellow(
                "limits",
                queue.name,
                f"its tasks have limits, which {len(queue.unlimited)} of its workers do not keep: "
                f"{_some(queue.unlimited)}",
                "Go workers and workers of an older taskq do not keep limits: let only current taskq workers serve "
                "this queue",
            )


def _check_workflows(facts: Facts) -> Findings:
    for queue in facts.queues:
        if queue.workflows and not queue.has_taskq_worker:
            yield yellow(
                "workflows",
                queue.name,
                "this is the home queue of running workflows, while no taskq worker serves it: "
                f"{queue.workflows}; Go workers do not start the next step",
                f"start a taskq worker with --queues {shlex.quote(queue.name)}; give new workflows a home queue with "
                'a taskq worker, with at_home("...")',
            )


def _check_quarantine(facts: Facts) -> Findings:
    for queue in facts.queues:
        if queue.quarantined:
            largest = max(queue.quarantined_sizes.values(), default=0)
            message = (
                f"{queue.quarantined} tasks could not be read and are in quarantine, with unchanged bytes; "
                f"the largest message has {largest:,} bytes"
            )
            advice = (
                "find out who enqueued them; docs/reference/layout-in-redis.md says where the bytes are; messages over "
                "MAX_MESSAGE_SIZE are not read"
            )
            yield yellow("quarantine", queue.name, message, advice)


def _check_damage(facts: Facts) -> Findings:
    for queue in facts.queues:
        if queue.damage is None:
            continue
        for kind, count in queue.damage.counts.items():
            advice = (
                "taskq doctor --fix repairs this, running workers within minutes; if it happens again, another program "
                "changes these keys"
            )
            yield yellow("damage", queue.name, f"{count} tasks: {kind}", advice)


def _check_removal(facts: Facts) -> Findings:
    for queue in facts.queues:
        if queue.is_half_removed:
            message = "its removal was interrupted, or is still running: hidden tasks take up memory"
            yield yellow("removal", queue.name, message, f"taskq queue remove {shlex.quote(queue.name)}")


def _check_names(facts: Facts) -> Findings:
    for queue in facts.queues:
        if queue.name_problem:
            yield yellow("names", queue.name, queue.name_problem, facts.advice_on_name(queue.name))


def _check_keys(facts: Facts) -> Findings:
    if facts.census is None:
        return
    counts = Counter((damage.queue, damage.kind) for damage in facts.census.damage)
    for (queue, kind), count in counts.items():
        example = next(each for each in facts.census.damage if (each.queue, each.kind) == (queue, kind))
        message = f"{count} times {kind.value.replace('_', ' ')}, for example {example.key}: {example.detail}"
        yield yellow("keys", queue, message, example.advice)
    for name, keys in sorted(facts.census.moved_aside.items()):
        message = f"a repair moved {len(keys)} keys aside that taskq did not write, for example {keys[0]}"
        yield yellow("keys", name, message, "find out who wrote it, then delete it")


def _is_complete(facts: Facts) -> bool:
    return facts.is_complete


@dataclass(frozen=True, slots=True)
class Rule:
    """One check of the doctor.

    Attributes:
        check: Name of the check.
        find: Yields a finding for each problem.
        fine: The green finding if there are none; "" for no such finding.
        is_known: Whether the facts suffice for a green finding.
    """

    check: str
    find: Callable[[Facts], Findings]
    fine: str = ""
    is_known: Callable[[Facts], bool] = _is_complete


RULES = (
    Rule("rights", _check_rights, "this user has all rights that taskq needs", lambda facts: True),
    Rule("types", _check_types, "all keys have the right type"),
    Rule("served", _check_served, "a worker serves every queue with waiting tasks"),
    Rule("scheduler", _check_scheduler),
    Rule("limits", _check_limits, "all workers keep the limits of their queues"),
    Rule("workflows", _check_workflows, "a taskq worker serves every home queue of workflows"),
    Rule("quarantine", _check_quarantine, "no task is in quarantine"),
    Rule(
        "damage",
        _check_damage,
        "no task is damaged",
        lambda facts: bool(facts.queues) and all(queue.damage is not None for queue in facts.queues),
    ),
    Rule("removal", _check_removal, "no queue is half removed"),
    Rule("names", _check_names),
    Rule("keys", _check_keys, "all keys have the right expiry", lambda facts: facts.census is not None),
)
