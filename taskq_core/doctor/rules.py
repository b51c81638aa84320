"""What is wrong and what to do about it: pure functions from facts to findings.

Red means that tasks can be lost or nothing works; yellow that it works and will hurt one day; green that a check found
nothing. A rule returns at least one finding, so a report shows what was looked at; none where it could not look.
"""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from taskq_core.doctor.facts import Facts, NodeFacts
from taskq_core.errors import BrokerAuthenticationError, BrokerError

OLDEST_REDIS = (6, 2)
OLDEST_VALKEY = (7, 2)
MEMORY_YELLOW = 0.80
"""Share of `maxmemory` in use from which it is a warning."""
MEMORY_RED = 0.95
"""Share of `maxmemory` in use from which new tasks are about to be refused."""
SKEW_YELLOW_S = 1.0
"""Seconds between the clocks from which times given by this machine are visibly off."""
SKEW_RED_S = 30.0
"""Seconds between the clocks from which deadlines and schedules are wrong."""


class Level(StrEnum):
    """How bad it is."""

    RED = "red"
    YELLOW = "yellow"
    GREEN = "green"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: Name of the check.
        level: How bad it is.
        subject: What it is about: a server, a queue or a key; "" for the whole.
        message: What was found, as a sentence.
        advice: What to do, "" where nothing is to be done.
    """

    check: str
    level: Level
    subject: str = ""
    message: str
    advice: str = ""


NOT_NEEDED = ("SCRIPT|EXISTS",)
"""What taskq itself does without."""

Findings = Iterator[Finding]


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


# --- one server -------------------------------------------------------------------------------------------------------


def check_version(node: NodeFacts) -> Findings:
    """Redis 6.2 and newer, Valkey 7.2 and newer."""
    if node.info is None:
        yield Finding(
            check="version",
            level=Level.YELLOW,
            subject=node.address,
            message="this user may not ask for INFO: version, memory, persistence and replication are not known",
            advice="allow it INFO (ACL SETUSER ... +info), or run the doctor as another user",
        )
        return
    is_valkey = "valkey_version" in node.info
    name, oldest = ("Valkey", OLDEST_VALKEY) if is_valkey else ("Redis", OLDEST_REDIS)
    text = str(node.info.get("valkey_version" if is_valkey else "redis_version", ""))
    numbers = tuple(map(int, re.findall(r"\d+", text)[:2]))
    if numbers < oldest:
        yield Finding(
            check="version",
            level=Level.RED,
            subject=node.address,
            message=f"{name} {text or 'of an unknown version'} lacks commands that taskq needs",
            advice=f"use {name} {oldest[0]}.{oldest[1]} or newer",
        )
    else:
        yield Finding(check="version", level=Level.GREEN, subject=node.address, message=f"{name} {text}")


def check_persistence(node: NodeFacts) -> Findings:
    """The append-only file is on and written to the disk."""
    if node.info is None:
        return
    has_aof = bool(int(node.info.get("aof_enabled", 0)))
    fsync = None if node.config is None else node.config.get("appendfsync")
    snapshots = None if node.config is None else node.config.get("save")
    if not has_aof and snapshots == "":
        yield Finding(
            check="persistence",
            level=Level.RED,
            subject=node.address,
            message="nothing is written to disk: a restart loses all tasks",
            advice="set appendonly yes and appendfsync everysec",
        )
    elif not has_aof:
        yield Finding(
            check="persistence",
            level=Level.YELLOW,
            subject=node.address,
            message="the append-only file is off: a crash loses all tasks since the last snapshot",
            advice="set appendonly yes and appendfsync everysec",
        )
    elif fsync == "no":
        yield Finding(
            check="persistence",
            level=Level.YELLOW,
            subject=node.address,
            message="appendfsync is no: a power cut loses what the system has not written yet, up to half a minute",
            advice="set appendfsync everysec",
        )
    else:
        how = f", appendfsync {fsync}" if fsync else ""
        yield Finding(check="persistence", level=Level.GREEN, subject=node.address, message=f"append-only file on{how}")


def check_saving(node: NodeFacts) -> Findings:
    """The last write to disk has succeeded."""
    if node.info is None:
        return
    failed = [
        what
        for what, name in (
            ("the last snapshot", "rdb_last_bgsave_status"),
            ("the last write of the append-only file", "aof_last_write_status"),
            ("the last rewrite of the append-only file", "aof_last_bgrewrite_status"),
        )
        if str(node.info.get(name, "ok")) != "ok"
    ]
    for what in failed:
        yield Finding(
            check="saving",
            level=Level.RED,
            subject=node.address,
            message=f"{what} failed; the server may refuse all writes until one succeeds",
            advice="look for a full disk or missing rights in the server's log",
        )
    if not failed:
        yield Finding(
            check="saving", level=Level.GREEN, subject=node.address, message="the last writes to disk went well"
        )


def check_eviction(node: NodeFacts) -> Findings:
    """A full server refuses new tasks rather than drop old ones."""
    if node.info is None:
        return
    policy = str(node.info.get("maxmemory_policy", "noeviction"))
    evicted = int(node.info.get("evicted_keys", 0))
    if policy != "noeviction":
        lost = f"; {evicted} keys were dropped since it started" if evicted else ""
        yield Finding(
            check="eviction",
            level=Level.RED,
            subject=node.address,
            message=f"maxmemory-policy is {policy}: a full server drops tasks without a word{lost}",
            advice="set maxmemory-policy noeviction",
        )
    elif evicted:
        yield Finding(
            check="eviction",
            level=Level.YELLOW,
            subject=node.address,
            message=f"{evicted} keys were dropped since the server started, before the policy became noeviction",
            advice="look for damaged tasks; the count begins anew at a restart or CONFIG RESETSTAT",
        )
    else:
        yield Finding(check="eviction", level=Level.GREEN, subject=node.address, message="maxmemory-policy noeviction")


def check_memory(node: NodeFacts) -> Findings:
    """There is memory left."""
    if node.info is None:
        return
    used, limit = int(node.info.get("used_memory", 0)), int(node.info.get("maxmemory", 0))
    share = used / limit if limit else 0.0
    if share < MEMORY_YELLOW:
        text = f"{share:.0%} of maxmemory in use" if limit else "no limit (maxmemory 0)"
        yield Finding(check="memory", level=Level.GREEN, subject=node.address, message=text)
        return
    is_red = share >= MEMORY_RED
    yield Finding(
        check="memory",
        level=Level.RED if is_red else Level.YELLOW,
        subject=node.address,
        message=f"{share:.0%} of maxmemory in use; at 100% new tasks are refused",
        advice="raise maxmemory, shorten retention, or run taskq task delete-all -q QUEUE -s archived",
    )


def check_clock(node: NodeFacts) -> Findings:
    """The server's clock and this machine's agree."""
    if node.skew_s is None:
        return
    skew_s = max(0.0, abs(node.skew_s) - node.skew_error_s)
    if skew_s < SKEW_YELLOW_S:
        text = "the clocks agree"
        yield Finding(check="clock", level=Level.GREEN, subject=node.address, message=text)
        return
    direction = "ahead of" if node.skew_s > 0 else "behind"
    yield Finding(
        check="clock",
        level=Level.RED if skew_s >= SKEW_RED_S else Level.YELLOW,
        subject=node.address,
        message=f"its clock is {abs(node.skew_s):.1f} s {direction} this machine's: "
        "tasks scheduled for a moment from here start that much off, deadlines likewise",
        advice="run a time service (chrony, systemd-timesyncd) on both machines",
    )


def check_replication(node: NodeFacts) -> Findings:
    """The server takes writes, and a failover loses nothing that was acknowledged."""
    if node.info is None:
        return
    if str(node.info.get("role", "master")) != "master":
        yield Finding(
            check="replication",
            level=Level.RED,
            subject=node.address,
            message="it is a replica and refuses writes",
            advice="give the primary's address, or let Sentinel find it: redis+sentinel://host:26379/name",
        )
        return
    replicas = int(node.info.get("connected_slaves", 0))
    least = "0" if node.config is None else node.config.get("min-replicas-to-write", "0")
    is_guarded = "min_slaves_good_slaves" in node.info or least != "0"
    if replicas < node.wanted_replicas:
        yield Finding(
            check="replication",
            level=Level.RED,
            subject=node.address,
            message=f"tasks ask for {node.wanted_replicas} replicas (replicated), and {replicas} are connected: "
            "none of their enqueues is confirmed",
            advice="start more replicas, or ask for fewer",
        )
    elif replicas and not is_guarded:
        yield Finding(
            check="replication",
            level=Level.YELLOW,
            subject=node.address,
            message=f"{replicas} replica{'s' if replicas > 1 else ''} and min-replicas-to-write 0: "
            "a primary that is cut off goes on taking tasks, which a failover loses",
            advice="set min-replicas-to-write 1 and min-replicas-max-lag 10",
        )
    else:
        text = f"{replicas} replicas" if replicas else "a primary without replicas"
        yield Finding(check="replication", level=Level.GREEN, subject=node.address, message=text)


NODE_RULES: tuple[Callable[[NodeFacts], Findings], ...] = (
    check_version,
    check_persistence,
    check_saving,
    check_eviction,
    check_memory,
    check_clock,
    check_replication,
)


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
    """Tasks that are ready have somebody to run them."""
    is_fine = facts.is_complete
    for queue in facts.queues:
        if not queue.pending:
            continue
        if queue.is_paused:
            is_fine = False
            yield Finding(
                check="served",
                level=Level.YELLOW,
                subject=queue.name,
                message=f"{queue.pending} tasks wait in a paused queue",
                advice=f"taskq queue resume {shlex.quote(queue.name)}",
            )
        elif not queue.is_served:
            is_fine = False
            yield Finding(
                check="served",
                level=Level.YELLOW,
                subject=queue.name,
                message=f"{queue.pending} tasks wait and no running worker serves this queue",
                advice=f"start a worker with --queues {shlex.quote(queue.name)}, or add it to QUEUES",
            )
    if is_fine:
        yield Finding(check="served", level=Level.GREEN, message="every queue with waiting tasks is served")


def check_limits(facts: Facts) -> Findings:
    """Who serves a queue whose tasks have limits keeps them."""
    is_fine = facts.is_complete
    for queue in facts.queues:
        if queue.unlimited:
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
    check_limits,
    check_quarantine,
    check_damage,
    check_removal,
    check_keys,
)
