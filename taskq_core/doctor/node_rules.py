"""What is wrong with one server: its version, what it writes to disk, memory, clock and replicas."""

import re
from collections.abc import Callable

from taskq_core.clock import SKEW_VISIBLE_S
from taskq_core.doctor.facts import NodeFacts
from taskq_core.doctor.findings import Finding, Findings, Level
from taskq_core.settings.language import gettext, ngettext, pmarked

OLDEST_REDIS = (6, 2)
OLDEST_VALKEY = (7, 2)
MEMORY_YELLOW = 0.80
"""Share of `maxmemory` in use from which it is a warning."""
MEMORY_RED = 0.95
"""Share of `maxmemory` in use from which new tasks are about to be refused."""
SKEW_RED_S = 30.0
"""Seconds between the clocks from which deadlines and schedules are wrong."""


def check_version(node: NodeFacts) -> Findings:
    """Redis 6.2 and newer, Valkey 7.2 and newer."""
    if node.info is None:
        yield Finding(
            check="version",
            level=Level.YELLOW,
            subject=node.address,
            message=gettext(
                "this user may not ask for INFO: version, memory, persistence and replication are not known"
            ),
            advice=gettext("allow it INFO (ACL SETUSER ... +info), or run the doctor as another user"),
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
            message=gettext("%(server)s %(version)s lacks commands that taskq needs", server=name, version=text)
            if text
            else gettext("%(server)s of an unknown version lacks commands that taskq needs", server=name),
            advice=gettext("use %(server)s %(version)s or newer", server=name, version=f"{oldest[0]}.{oldest[1]}"),
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
            message=gettext("nothing is written to disk: a restart loses all tasks"),
            advice=gettext("set appendonly yes and appendfsync everysec"),
        )
    elif not has_aof:
        yield Finding(
            check="persistence",
            level=Level.YELLOW,
            subject=node.address,
            message=gettext("the append-only file is off: a crash loses all tasks since the last snapshot"),
            advice=gettext("set appendonly yes and appendfsync everysec"),
        )
    elif fsync == "no":
        yield Finding(
            check="persistence",
            level=Level.YELLOW,
            subject=node.address,
            message=gettext(
                "appendfsync is no: a power cut loses what the system has not written yet, up to half a minute"
            ),
            advice=gettext("set appendfsync everysec"),
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
            (gettext("the last snapshot"), "rdb_last_bgsave_status"),
            (gettext("the last write of the append-only file"), "aof_last_write_status"),
            (gettext("the last rewrite of the append-only file"), "aof_last_bgrewrite_status"),
        )
        if str(node.info.get(name, "ok")) != "ok"
    ]
    for what in failed:
        yield Finding(
            check="saving",
            level=Level.RED,
            subject=node.address,
            message=gettext("%(what)s failed; the server may refuse all writes until one succeeds", what=what),
            advice=gettext("look for a full disk or missing rights in the server's log"),
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
        lost = gettext("; %(count)s keys were dropped since it started", count=evicted) if evicted else ""
        yield Finding(
            check="eviction",
            level=Level.RED,
            subject=node.address,
            message=gettext(
                "maxmemory-policy is %(policy)s: a full server drops tasks without a word%(lost)s",
                policy=policy,
                lost=lost,
            ),
            advice=gettext("set maxmemory-policy noeviction"),
        )
    elif evicted:
        yield Finding(
            check="eviction",
            level=Level.YELLOW,
            subject=node.address,
            message=gettext(
                "%(count)s keys were dropped since the server started, before the policy became noeviction",
                count=evicted,
            ),
            advice=gettext("look for damaged tasks; the count begins anew at a restart or CONFIG RESETSTAT"),
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
        message=gettext(
            "%(share)s of maxmemory in use; at %(full)s new tasks are refused", share=f"{share:.0%}", full="100%"
        ),
        advice=gettext("raise maxmemory, shorten retention, or run taskq task delete-all -q QUEUE -s archived"),
    )


def check_clock(node: NodeFacts) -> Findings:
    """The server's clock and this machine's agree."""
    if node.skew_s is None:
        return
    skew_s = max(0.0, abs(node.skew_s) - node.skew_error_s)
    if skew_s < SKEW_VISIBLE_S:
        text = "the clocks agree"
        yield Finding(check="clock", level=Level.GREEN, subject=node.address, message=text)
        return
    skewed = f"{abs(node.skew_s):.1f}"
    yield Finding(
        check="clock",
        level=Level.RED if skew_s >= SKEW_RED_S else Level.YELLOW,
        subject=node.address,
        message=gettext(
            "its clock is %(seconds)s s ahead of this machine's: tasks scheduled for a moment from here start that "
            "much off, deadlines likewise",
            seconds=skewed,
        )
        if node.skew_s > 0
        else gettext(
            "its clock is %(seconds)s s behind this machine's: tasks scheduled for a moment from here start that "
            "much off, deadlines likewise",
            seconds=skewed,
        ),
        advice=gettext("run a time service (chrony, systemd-timesyncd) on both machines"),
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
            message=gettext("it is a replica and refuses writes"),
            advice=gettext("give the primary's address, or let Sentinel find it: redis+sentinel://host:26379/name"),
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
            message=gettext(
                "tasks ask for %(wanted)s replicas (replicated), and %(there)s are connected: none of their enqueues "
                "is confirmed",
                wanted=node.wanted_replicas,
                there=replicas,
            ),
            advice=gettext("start more replicas, or ask for fewer"),
        )
    elif replicas and not is_guarded:
        yield Finding(
            check="replication",
            level=Level.YELLOW,
            subject=node.address,
            message=ngettext(
                "%(count)s replica and min-replicas-to-write 0: a primary that is cut off goes on taking tasks, which "
                "a failover loses",
                "%(count)s replicas and min-replicas-to-write 0: a primary that is cut off goes on taking tasks, "
                "which a failover loses",
                replicas,
                count=replicas,
            ),
            advice=gettext("set min-replicas-to-write 1 and min-replicas-max-lag 10"),
        )
    else:
        text = f"{replicas} replicas" if replicas else "a primary without replicas"
        yield Finding(check="replication", level=Level.GREEN, subject=node.address, message=text)


NODE_CHECKS = (
    pmarked("check", "version"),
    pmarked("check", "persistence"),
    pmarked("check", "saving"),
    pmarked("check", "eviction"),
    pmarked("check", "memory"),
    pmarked("check", "clock"),
    pmarked("check", "replication"),
)
"""The names of the checks of a server, as they are called in English."""
NODE_RULES: tuple[Callable[[NodeFacts], Findings], ...] = (
    check_version,
    check_persistence,
    check_saving,
    check_eviction,
    check_memory,
    check_clock,
    check_replication,
)
