"""What is wrong and what to do about it: pure functions from facts to findings.

Red means that tasks can be lost or nothing works; yellow that it works and will hurt one day; green that a check found
nothing. A rule returns at least one finding, so a report shows what was looked at; none where it could not look.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable

from taskq_core.doctor.facts import Facts, NodeFacts
from taskq_core.doctor.findings import Finding, Findings, Level
from taskq_core.doctor.node_rules import NODE_RULES
from taskq_core.errors import BrokerAuthenticationError, BrokerError

NOT_NEEDED = ("SCRIPT|EXISTS",)
"""What taskq itself does without."""


def diagnose(facts: Facts) -> list[Finding]:
    """Return what all rules find, the worst first."""
    return _worst_first([*diagnose_nodes(facts.nodes), *(finding for rule in RULES for finding in rule(facts))])


def diagnose_nodes(nodes: Iterable[NodeFacts]) -> list[Finding]:
    """Return what the rules about servers find, the worst first."""
    return _worst_first([finding for node in nodes for rule in NODE_RULES for finding in rule(node)])


def _worst_first(findings: list[Finding]) -> list[Finding]:
    order = list(Level)
    return sorted(findings, key=lambda finding: order.index(finding.level))


def unreachable(error: BrokerError) -> Finding:
    """Return the finding of a broker that nothing could be asked."""
    if isinstance(error, BrokerAuthenticationError):
        advice = "give user and password in TASKQ_URL, or with --username and --ask-password"
    else:
        advice = "check that the server runs there and that this machine may reach it; --url or TASKQ_URL says where"
    return Finding(check="connection", level=Level.RED, message=str(error), advice=advice)


# --- the whole --------------------------------------------------------------------------------------------------------


def check_rights(facts: Facts) -> Findings:
    """This user may do all that taskq does."""
    for refusal in facts.refusals:
        is_needed = refusal.action not in NOT_NEEDED
        yield Finding(
            check="rights",
            level=Level.RED if is_needed else Level.YELLOW,
            subject=refusal.action,
            message=f"this user may not{'' if is_needed else ', which only tools need'}: {refusal.answer}",
            advice=_right(refusal.action),
        )
    if not facts.refusals:
        yield Finding(check="rights", level=Level.GREEN, message="this user may do all that taskq does")


def _right(action: str) -> str:
    kind, _, name = action.partition(" ")
    if kind == "keys":
        return f"ACL SETUSER ... ~{name}"
    if kind == "channels":
        return f"ACL SETUSER ... &{name}"
    return f"ACL SETUSER ... +{action.lower()}"


def check_types(facts: Facts) -> Findings:
    """No key of the layout holds something else."""
    for wrong in facts.wrong_types:
        yield Finding(
            check="types",
            level=Level.RED,
            subject=wrong.key,
            message=f"it holds a {wrong.found}, which is not what stands under this name: another program uses it",
            advice="taskq doctor --fix moves it aside, as it is; find out whose it is, or give taskq another --prefix",
        )
    if facts.is_complete and not facts.wrong_types:
        yield Finding(check="types", level=Level.GREEN, message="all keys are of the right type")


def check_served(facts: Facts) -> Findings:
    """A running worker serves every queue in which tasks wait, or to which tasks of the application go."""
    unserved = dict(facts.unserved_tasks)
    is_fine = facts.is_complete and not unserved
    for queue in facts.queues:
        waiting = (queue.pending or 0) + queue.later
        if queue.is_paused and queue.pending:
            is_fine = False
            yield Finding(
                check="served",
                level=Level.YELLOW,
                subject=queue.name,
                message=f"waiting in a paused queue: {queue.pending}",
                advice=f"taskq queue resume {shlex.quote(queue.name)}",
            )
        elif waiting and not queue.is_served:
            is_fine = False
            unserved.pop(queue.name, None)
            yield _unserved(queue.name, f"waiting, while no running worker serves this queue: {waiting}")
    for name, tasks in sorted(unserved.items()):
        more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
        yield _unserved(name, f"no running worker serves this queue, to which task {tasks[0]!r}{more} goes")
    if is_fine:
        yield Finding(check="served", level=Level.GREEN, message="every queue with waiting tasks is served")


def _unserved(queue: str, message: str) -> Finding:
    advice = f"start a worker with --queues {shlex.quote(queue)}, or add the queue to QUEUES"
    return Finding(check="served", level=Level.YELLOW, subject=queue, message=message, advice=advice)


def check_scheduler(facts: Facts) -> Findings:
    """A scheduler runs if the application has periodic tasks."""
    if facts.unscheduled:
        shown = ", ".join(facts.unscheduled[:5]) + (", ..." if len(facts.unscheduled) > 5 else "")
        yield Finding(
            check="scheduler",
            level=Level.YELLOW,
            message=f"no running scheduler has the periodic tasks of this application: {shown}",
            advice="start a worker without --no-scheduler, or taskq scheduler",
        )


def check_limits(facts: Facts) -> Findings:
    """Who serves a queue whose tasks have limits keeps them."""
    is_fine = facts.is_complete
    for queue in facts.queues:
        if queue.limited and not queue.has_keeper:
            is_fine = False
            name = shlex.quote(queue.name)
            yield Finding(
                check="limits",
                level=Level.YELLOW,
                subject=queue.name,
                message=f"waiting for a limit, while no worker that keeps limits serves this queue: {queue.limited}; "
                "nothing starts them",
                advice=f"start a taskq worker with --queues {name}; or enqueue without limits, and start the waiting "
                f"tasks with taskq task run --queue {name} --id ID",
            )
        elif queue.unlimited:
            is_fine = False
            shown = ", ".join(queue.unlimited[:5]) + (", ..." if len(queue.unlimited) > 5 else "")
            yield Finding(
                check="limits",
                level=Level.YELLOW,
                subject=queue.name,
                message=f"its tasks have limits, which {len(queue.unlimited)} of its workers do not keep: {shown}",
                advice="Go's workers know no limits, nor do those of an older taskq: let others serve this queue alone",
            )
    if is_fine:
        yield Finding(check="limits", level=Level.GREEN, message="whoever serves a queue keeps the limits of its tasks")


def check_workflows(facts: Facts) -> Findings:
    """Every queue that is home to running workflows has a worker that advances them."""
    stuck = [queue for queue in facts.queues if queue.workflows and not queue.has_taskq_worker]
    for queue in stuck:
        yield Finding(
            check="workflows",
            level=Level.YELLOW,
            subject=queue.name,
            message=f"running workflows whose home is this queue, while no taskq worker serves it: {queue.workflows}; "
            "nothing starts the next step after one that Go runs",
            advice=f"start a taskq worker with --queues {shlex.quote(queue.name)}; give new workflows a home that one "
            'serves, with at_home("...")',
        )
    if facts.is_complete and not stuck:
        yield Finding(check="workflows", level=Level.GREEN, message="a taskq worker serves every home of workflows")


def check_quarantine(facts: Facts) -> Findings:
    """No task was put aside because it cannot be read."""
    for queue in facts.queues:
        if queue.quarantined:
            yield Finding(
                check="quarantine",
                level=Level.YELLOW,
                subject=queue.name,
                message=f"{queue.quarantined} tasks could not be read and were put aside, byte for byte",
                advice="look at who enqueues there; docs/reference/layout-in-redis.md says where the bytes are",
            )
    if facts.is_complete and not any(queue.quarantined for queue in facts.queues):
        yield Finding(check="quarantine", level=Level.GREEN, message="no task was put aside")


def check_damage(facts: Facts) -> Findings:
    """The records of each task agree with each other."""
    looked = [queue for queue in facts.queues if queue.damage is not None]
    is_fine = True
    for queue in looked:
        assert queue.damage is not None
        for kind, count in queue.damage.counts.items():
            is_fine = False
            yield Finding(
                check="damage",
                level=Level.YELLOW,
                subject=queue.name,
                message=f"{count} tasks: {kind}",
                advice="taskq doctor --fix repairs this, running workers within minutes; "
                "if it comes again, another program changes these keys",
            )
        if queue.damage.moving:
            is_fine = False
            yield Finding(
                check="damage",
                level=Level.YELLOW,
                subject=queue.name,
                message=f"{queue.damage.moving} tasks were cut off on their way to another queue",
                advice="taskq doctor --fix carries them on, as do running workers",
            )
    if looked and is_fine and len(looked) == len(facts.queues):
        yield Finding(check="damage", level=Level.GREEN, message="the records of all tasks agree")


def check_removal(facts: Facts) -> Findings:
    """No removal of a queue was cut off."""
    for queue in facts.queues:
        if queue.is_half_removed:
            yield Finding(
                check="removal",
                level=Level.YELLOW,
                subject=queue.name,
                message="its removal was cut off, or goes on just now: tasks that nobody sees take up memory",
                advice=f"taskq queue remove {shlex.quote(queue.name)}",
            )
    if facts.is_complete and not any(queue.is_half_removed for queue in facts.queues):
        yield Finding(check="removal", level=Level.GREEN, message="no queue is half removed")


def check_keys(facts: Facts) -> Findings:
    """No single key is left over, out of place, or lives too long or too short."""
    if facts.census is None:
        return
    counts = Counter((damage.queue, damage.kind) for damage in facts.census.damage)
    for (queue, kind), count in counts.items():
        example = next(each for each in facts.census.damage if (each.queue, each.kind) == (queue, kind))
        yield Finding(
            check="keys",
            level=Level.YELLOW,
            subject=queue,
            message=f"{count} times {kind.value.replace('_', ' ')}: {example.key}, for example",
            advice="taskq doctor --fix repairs this",
        )
    for name, kept in sorted(facts.census.kept.items()):
        yield Finding(
            check="keys",
            level=Level.YELLOW,
            subject=name,
            message=f"{len(kept)} times something was moved aside that is not taskq's: {kept[0]}, for example",
            advice="look at what it is and who wrote it, then delete it",
        )
    if not (counts or facts.census.kept):
        yield Finding(check="keys", level=Level.GREEN, message="no key is left over or out of place")


RULES: tuple[Callable[[Facts], Findings], ...] = (
    check_rights,
    check_types,
    check_served,
    check_scheduler,
    check_limits,
    check_workflows,
    check_quarantine,
    check_damage,
    check_removal,
    check_keys,
)
