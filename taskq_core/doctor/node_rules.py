"""Check one server: its version, persistence, memory, clock and replicas."""

import re
from collections.abc import Callable, Mapping

from taskq_core.clock import SKEW_VISIBLE_S
from taskq_core.doctor.facts import NodeFacts
from taskq_core.doctor.findings import Findings, green, red, yellow
from taskq_core.settings.language import gettext, ngettext, pmarked

Info = Mapping[str, str | int]
"""The reply to `INFO`, by name."""

OLDEST_REDIS = (6, 2)
OLDEST_VALKEY = (7, 2)
MEMORY_YELLOW = 0.80
"""Share of `maxmemory` in use above which the finding is yellow."""
MEMORY_RED = 0.95
"""Share of `maxmemory` in use above which the finding is red."""
SKEW_RED_S = 30.0
"""Difference in seconds between the clocks of the server and this machine, above which the finding is red."""


def check_version(node: NodeFacts, info: Info) -> Findings:
    """Check for Redis 6.2 or newer, or Valkey 7.2 or newer."""
    is_valkey = "valkey_version" in info
    name, oldest = ("Valkey", OLDEST_VALKEY) if is_valkey else ("Redis", OLDEST_REDIS)
    text = str(info.get("valkey_version" if is_valkey else "redis_version", ""))
    if tuple(map(int, re.findall(r"\d+", text)[:2])) >= oldest:
        yield green("version", node.address, f"{name} {text}")
        return
    yield red(
        "version",
        node.address,
        gettext("%(server)s %(version)s lacks commands that taskq needs", server=name, version=text)
        if text
        else gettext("%(server)s of an unknown version lacks commands that taskq needs", server=name),
        gettext("use %(server)s %(version)s or newer", server=name, version=f"{oldest[0]}.{oldest[1]}"),
    )


def check_persistence(node: NodeFacts, info: Info) -> Findings:
    """Check that the append-only file is on and written to disk."""
    config = node.config or {}
    fsync = config.get("appendfsync")
    if not int(info.get("aof_enabled", 0)):
        advice = gettext("set appendonly yes and appendfsync everysec")
        if config.get("save") == "":
            message = gettext("nothing is written to disk: a restart loses all tasks")
            yield red("persistence", node.address, message, advice)
        else:
            message = gettext("the append-only file is off: a crash loses all tasks since the last snapshot")
            yield yellow("persistence", node.address, message, advice)
    elif fsync == "no":
        message = gettext(
            "appendfsync is no: a power cut loses what the system has not written yet, up to half a minute"
        )
        yield yellow("persistence", node.address, message, gettext("set appendfsync everysec"))
    else:
        how = f", appendfsync {fsync}" if fsync else ""
        yield green("persistence", node.address, f"append-only file on{how}")


def check_saving(node: NodeFacts, info: Info) -> Findings:
    """Check that the server's last writes to disk (snapshot and append-only file) succeeded."""
    failed = [
        what
        for what, name in (
            (gettext("the last snapshot"), "rdb_last_bgsave_status"),
            (gettext("the last write of the append-only file"), "aof_last_write_status"),
            (gettext("the last rewrite of the append-only file"), "aof_last_bgrewrite_status"),
        )
        if str(info.get(name, "ok")) != "ok"
    ]
    for what in failed:
        message = gettext("%(what)s failed; the server may refuse all writes until one succeeds", what=what)
        yield red(
            "saving", node.address, message, gettext("look in the server's log for a full disk or missing rights")
        )
    if not failed:
        yield green("saving", node.address, "the last writes to disk succeeded")


def check_eviction(node: NodeFacts, info: Info) -> Findings:
    """Check that a full server refuses new tasks instead of deleting old ones."""
    policy = str(info.get("maxmemory_policy", "noeviction"))
    evicted = int(info.get("evicted_keys", 0))
    if policy != "noeviction":
        lost = gettext("; it has deleted %(count)s keys since it started", count=evicted) if evicted else ""
        message = gettext(
            "maxmemory-policy is %(policy)s: a full server deletes tasks without an error%(lost)s",
            policy=policy,
            lost=lost,
        )
        yield red("eviction", node.address, message, gettext("set maxmemory-policy noeviction"))
    elif evicted:
        message = gettext(
            "the server deleted %(count)s keys after its start, before the policy became noeviction", count=evicted
        )
        advice = gettext("look for damaged tasks; a restart or CONFIG RESETSTAT sets the count to 0")
        yield yellow("eviction", node.address, message, advice)
    else:
        yield green("eviction", node.address, "maxmemory-policy noeviction")


def check_memory(node: NodeFacts, info: Info) -> Findings:
    """Check that the server uses less memory than `maxmemory` allows."""
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    share = used / limit if limit else 0.0
    if share < MEMORY_YELLOW:
        text = f"{share:.0%} of maxmemory in use" if limit else "no limit (maxmemory 0)"
        yield green("memory", node.address, text)
        return
    level = red if share >= MEMORY_RED else yellow
    message = gettext(
        "%(share)s of maxmemory in use; at %(full)s new tasks are refused", share=f"{share:.0%}", full="100%"
    )
    advice = gettext("raise maxmemory, shorten retention, or run taskq task delete-all -q QUEUE -s archived")
    yield level("memory", node.address, message, advice)


def check_clock(node: NodeFacts, _info: Info) -> Findings:
    """Check that the server's clock and this machine's clock agree."""
    if node.skew_s is None:
        return
    skew_s = max(0.0, abs(node.skew_s) - node.skew_error_s)
    if skew_s < SKEW_VISIBLE_S:
        yield green("clock", node.address, "the clocks agree")
        return
    level = red if skew_s >= SKEW_RED_S else yellow
    skewed = f"{abs(node.skew_s):.1f}"
    message = (
        gettext(
            "the server's clock is %(seconds)s s ahead of this machine's: scheduled tasks start, and "
            "deadlines end, that much too early",
            seconds=skewed,
        )
        if node.skew_s > 0
        else gettext(
            "the server's clock is %(seconds)s s behind this machine's: scheduled tasks start, and "
            "deadlines end, that much too late",
            seconds=skewed,
        )
    )
    advice = gettext("run a time service (chrony, systemd-timesyncd) on both machines")
    yield level("clock", node.address, message, advice)


def check_replication(node: NodeFacts, info: Info) -> Findings:
    """Check that the server accepts writes, and that a failover loses no acknowledged task."""
    if str(info.get("role", "master")) != "master":
        advice = gettext("give the primary's address, or let Sentinel find it: redis+sentinel://host:26379/name")
        yield red("replication", node.address, gettext("this server is a replica and refuses writes"), advice)
        return
    replicas = int(info.get("connected_slaves", 0))
    least = (node.config or {}).get("min-replicas-to-write", "0")
    is_guarded = "min_slaves_good_slaves" in info or least != "0"
    if replicas < node.wanted_replicas:
        message = gettext(
            "tasks need %(wanted)s replicas (option replicated), but only %(there)s are connected: each of their "
            "enqueues raises NotReplicatedError",
            wanted=node.wanted_replicas,
            there=replicas,
        )
        yield red("replication", node.address, message, gettext("start more replicas, or ask for fewer"))
    elif replicas and not is_guarded:
        message = ngettext(
            "%(count)s replica and min-replicas-to-write 0: a primary without connection to it still accepts tasks,"
            " and a failover loses them",
            "%(count)s replicas and min-replicas-to-write 0: a primary without connection to them still accepts "
            "tasks, and a failover loses them",
            replicas,
            count=replicas,
        )
        advice = gettext("set min-replicas-to-write 1 and min-replicas-max-lag 10")
        yield yellow("replication", node.address, message, advice)
    else:
        yield green("replication", node.address, f"{replicas} replicas" if replicas else "a primary without replicas")


NODE_CHECKS = (
    pmarked("check", "version"),
    pmarked("check", "persistence"),
    pmarked("check", "saving"),
    pmarked("check", "eviction"),
    pmarked("check", "memory"),
    pmarked("check", "clock"),
    pmarked("check", "replication"),
)
"""English names of the checks of a server, marked for translation."""
NODE_RULES: tuple[Callable[[NodeFacts, Info], Findings], ...] = (
    check_version,
    check_persistence,
    check_saving,
    check_eviction,
    check_memory,
    check_clock,
    check_replication,
)


def check_node(node: NodeFacts) -> Findings:
    """Check one server by all rules. If this Redis user may not run INFO, check only the clock."""
    if node.info is None:
        yield yellow(
            "version",
            node.address,
            gettext("this user may not call INFO: version, memory, persistence and replication are unknown"),
            gettext("allow INFO for this user (ACL SETUSER ... +info), or run the doctor as another user"),
        )
        yield from check_clock(node, {})
        return
    for rule in NODE_RULES:
        yield from rule(node, node.info)
