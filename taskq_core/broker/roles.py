"""Rules of `ACL SETUSER` that give a user of Redis the rights of one role and no others.

Redis checks every command in a script as if the user had sent it. So `EVAL` gives no further rights, and a role is the
list of the commands that its requests and scripts use, each with its keys. Since Redis 7, a selector limits commands to
keys. Redis 6.2 has no selectors: a user may use each of its commands on each of its keys, which restricts less.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from taskq_core.errors import ConfigurationError
from taskq_core.wire import Keys, QueueKeys, validate_queue_name

EVERY_QUEUE = "*"
"""All queues, existing and future ones."""
_SPECIAL = re.compile(r"([*?\[\\])")
_UNUSABLE = re.compile(r"[\s\"'\x00-\x1f\x7f]")

CONNECTION = "asking cluster|slots ping time wait"
"""Commands without a key that connections send. `AUTH` and `HELLO` need no right."""
READ_COMMANDS = (
    "exists get getbit hget hgetall hkeys hmget hscan hstrlen hvals lindex llen lrange memory|usage mget scard "
    "sismember smembers srandmember sscan xrange zcard zcount zrange zrank zrevrange zscore"
)
COUNT_COMMANDS = (
    "exists hget hgetall lindex llen lrange memory|usage mget scard smembers srandmember zcard zcount zrange"
)
CHANGE_COMMANDS = (
    f"{READ_COMMANDS} del expire hdel hexists hincrby hlen hset hsetnx linsert lpos lpush lrem persist pexpire pttl "
    "rename rpop rpush sadd set setbit srem type unlink zadd zpopmin zrem zscan"
)
WORKER_COMMANDS = (
    f"{CHANGE_COMMANDS} blmove blpop expireat getex incrby ltrim xadd xlen zmscore zrangestore "
    "zremrangebyrank zremrangebyscore"
)


class Role(StrEnum):
    """Purpose of a user of Redis."""

    PRODUCER = "producer"
    """Enqueues tasks and workflows, and reads and cancels them by their ids."""
    WORKER = "worker"
    """Runs tasks, and has all rights that an application needs on its queues."""
    SCHEDULER = "scheduler"
    """Enqueues periodic tasks."""
    OPERATOR = "operator"
    """Reads and changes all data of its queues with the inspector, the `taskq` command, the dashboards and the API."""
    VIEWER = "viewer"
    """Reads all data of its queues with the same tools, payloads too, and changes nothing."""
    EXPORTER = "exporter"
    """Reads the counts for the metrics exporter."""


class RedisVersion(StrEnum):
    """Versions of Redis that support different rules."""

    V6_2 = "6.2"
    V7_0 = "7.0"
    """First version with selectors and separate rights to read and to write a key."""
    V7_2 = "7.2"
    """First version with the command `WAITAOF`."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Commands that are allowed on keys or channels.

    Attributes:
        commands: Names separated by spaces.
        keys: Patterns of keys.
        access: `~` to read and write the keys, `%R~` only to read, `%W~` only to write them.
        channels: Patterns of channels.
    """

    commands: str
    keys: Sequence[str] = ()
    access: str = "~"
    channels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Names:
    """Patterns of the keys and channels of an installation and of some of its queues."""

    keys: Keys
    queues: Sequence[QueueKeys]

    def each(self, *attributes: str, suffix: str = "") -> list[str]:
        """Return the keys in these attributes of `QueueKeys`, for each queue."""
        return [f"{getattr(queue, name)}{suffix}" for queue in self.queues for name in attributes]

    def own(self, *suffixes: str) -> list[str]:
        """Return taskq's own keys of each queue with these suffixes."""
        return [f"{queue.own_prefix}{suffix}" for queue in self.queues for suffix in suffixes]

    @property
    def everything(self) -> list[str]:
        """Patterns of all keys of the queues."""
        return [*self.each("prefix", "own_prefix", suffix="*")]

    @property
    def fleet(self) -> list[str]:
        """Keys that list the queues, workers and schedulers. They belong to no single queue."""
        keys = self.keys
        history = keys.scheduler_history("*")
        return [keys.queues, f"{keys.servers}*", f"{keys.workers}*", f"{keys.schedulers}*", keys.schedules, history]

    @property
    def notices(self) -> list[str]:
        """Channels on which ends of tasks are published."""
        return self.each("done")


def rules(
    role: Role,
    queues: Iterable[str],
    *,
    prefix: str,
    db: int = 0,
    redis: RedisVersion = RedisVersion.V7_2,
    with_lists: bool = False,
) -> list[str]:
    """Return the rules of a role, to be added to a user without rights.

    Args:
        role: The role.
        queues: Names of the queues; `EVERY_QUEUE` for all.
        prefix: First part of every key.
        db: Number of the database.
        redis: Oldest version of the servers.
        with_lists: Allow a producer or scheduler to read and change the lists of pending and running tasks. It needs
            this right for tasks with a priority, and to cancel running steps of a workflow. Other roles always have it.

    Raises:
        ConfigurationError: A name cannot be used in a rule.
    """
    names = _names(prefix, queues)
    grants = list(_grants(role, names, with_lists))
    plain = [*CONNECTION.split(), *_EXTRA[role].split()]
    if redis >= RedisVersion.V7_2:
        plain.append("waitaof")
    if db:
        plain.append("select")
    if redis is RedisVersion.V6_2:
        return _union(names, grants, plain)
    # Scripts may declare any keys, because Redis checks the rights for each command that a script calls.
    found = [*_allow(plain), "(~* +eval +evalsha)"]
    for grant in grants:
        words = [f"{grant.access}{key}" for key in grant.keys]
        if grant.channels:
            words += ["resetchannels", *(f"&{channel}" for channel in grant.channels)]
        found.append(f"({' '.join([*words, *_allow(grant.commands.split())])})")
    return found


def _union(names: _Names, grants: Sequence[Grant], plain: Iterable[str]) -> list[str]:
    """Return the rules for Redis 6.2, where every command of a user is allowed on every key of the user.

    The keys include those that scripts declare and do not use.
    """
    declared = [*names.each("prefix", suffix="absent"), *names.each("absent", "delivered")]
    commands = {*plain, "eval", "evalsha", *(command for grant in grants for command in grant.commands.split())}
    return [
        *(f"~{key}" for key in _once([*(key for grant in grants for key in grant.keys), *declared])),
        *(f"&{channel}" for channel in _once(channel for grant in grants for channel in grant.channels)),
        *_allow(sorted(commands)),
    ]


_EXTRA = {
    Role.PRODUCER: "",
    Role.SCHEDULER: "",
    Role.EXPORTER: "",
    Role.VIEWER: "acl|whoami cluster|info info scan script|exists",
    Role.OPERATOR: "acl|whoami cluster|info info scan script|exists",
    Role.WORKER: "client|tracking info scan",
}
"""Commands without a key that a role may use, in addition to `CONNECTION`."""


def _grants(role: Role, names: _Names, with_lists: bool) -> Iterator[Grant]:
    match role:
        case Role.PRODUCER:
            yield from _enqueueing(names, with_lists)
            yield from _following(names, with_lists)
        case Role.SCHEDULER:
            yield from _enqueueing(names, with_lists)
            yield from _scheduling(names)
        case Role.EXPORTER:
            yield Grant(COUNT_COMMANDS, [*names.everything, *names.fleet], "%R~")
        case Role.VIEWER:
            yield Grant(READ_COMMANDS, [*names.everything, *names.fleet], "%R~")
        case Role.OPERATOR:
            yield Grant(CHANGE_COMMANDS, names.everything)
            yield Grant(READ_COMMANDS, names.fleet, "%R~")
            yield Grant("sadd srem", [names.keys.queues], "%W~")
            yield Grant("hdel hset hsetnx", [names.keys.schedules], "%W~")
            yield Grant("publish subscribe", channels=[*names.notices, names.keys.cancel, names.keys.control])
        case Role.WORKER:
            keys = names.keys
            shared = [keys.scheduler_leader("*"), keys.outbox_leader("*"), keys.peers("*"), keys.semaphore("*")]
            yield Grant(WORKER_COMMANDS, [*names.everything, *names.fleet, *shared])
            yield Grant("publish subscribe", channels=[*names.notices, names.keys.cancel, names.keys.control])


def _enqueueing(names: _Names, with_lists: bool) -> Iterator[Grant]:
    """Return the rights to store new tasks."""
    yield Grant("sadd", [names.keys.queues], "%W~")
    yield Grant("llen lpush lrem", names.each("pending"), "%W~")
    yield Grant("llen lpush", names.each("wake"), "%W~")
    yield Grant("zadd zcard", names.each("scheduled", "retry"), "%W~")
    yield Grant("zcount zscore", names.each("scheduled", "retry"), "%R~")
    yield Grant("exists hdel hmget hset", names.each("task_prefix", suffix="*"))
    yield Grant("expire get set type", names.each("unique_prefix", suffix="*"))
    yield Grant("sadd scard", names.each("groups"), "%W~")
    yield Grant("zadd zcard zscore", names.each("group_prefix", suffix="*"))
    yield Grant("hincrby hmget", names.each("limits"))
    yield Grant("hmget hset persist pexpire", names.own("lim:r:*"))
    yield Grant("zadd zcard zrem zscore", names.own("lim:h:*", "lim:w:*"))
    yield Grant("zadd zcount zrem", names.each("limits_due", "limit_checks"))
    yield Grant("llen lpush", names.each("limit_wake"))
    yield Grant("del expire get set", names.own("rcpt:*", "unconfirmed:*"))
    if with_lists:
        yield Grant("lindex linsert lpos rpop rpush", names.each("pending"))
        yield Grant("expire type zadd zcard zrange zrem", names.each("urgent"))


def _following(names: _Names, with_lists: bool) -> Iterator[Grant]:
    """Return the rights to start workflows, and to read, await, signal and cancel tasks and workflows by their ids."""
    yield Grant("expire hdel hget hgetall hincrby hmget hset", names.own("steps:*"))
    yield Grant("zcard zrem", names.each("questions"), "%W~")
    yield Grant("del xrange", names.own("steps:*", "stream:*"))
    yield Grant("hget hstrlen", names.each("task_prefix", suffix="*"), "%R~")
    yield Grant("zscore", names.each("lease", "archived", "completed"), "%R~")
    yield Grant("zrem", [*names.each("scheduled", "retry"), *names.each("group_prefix", suffix="*")], "%W~")
    yield Grant("srem", names.each("groups"), "%W~")
    yield Grant("del", names.each("task_prefix", "unique_prefix", suffix="*"), "%W~")
    yield Grant("del expire hdel hget hincrby hmget hset persist sadd scard setbit smembers", names.own("wf:*"))
    ids = ("steps", "workflows_out", "workflows_open", "workflows_running", "workflows_ended")
    yield Grant("zadd zcard zrem", names.each(*ids), "%W~")
    yield Grant("zscore", names.each("workflows_open"), "%R~")
    yield Grant("sadd", names.each("workflow_queues"), "%W~")
    yield Grant("set", names.own("wf-cancelled:*"))
    yield Grant("exists", names.own("leader:lookout"), "%R~")
    if with_lists:
        yield Grant("lrange", names.each("active"), "%R~")
    yield Grant("publish", channels=[*names.notices, names.keys.cancel])
    yield Grant("subscribe", channels=names.notices)


def _scheduling(names: _Names) -> Iterator[Grant]:
    """Return the rights of schedulers: keys of last runs, the leader, published entries and histories."""
    keys = names.keys
    yield Grant("get set", names.own("tick:*"))
    yield Grant("hgetall", [keys.schedules], "%R~")
    yield Grant("del expire hdel hget hset type", names.each("runs"))
    yield Grant("del get set", [keys.scheduler_leader("*")])
    yield Grant("del expire lpush zadd zrem zremrangebyscore", [f"{keys.schedulers}*"], "%W~")
    yield Grant("expire persist zadd zremrangebyrank", [keys.scheduler_history("*")], "%W~")


def _names(prefix: str, queues: Iterable[str]) -> _Names:
    keys = Keys(_pattern("prefix", prefix))
    return _Names(
        keys, [keys.queue(name if name == EVERY_QUEUE else _pattern("queue", name)) for name in _once(queues)]
    )


def _pattern(what: str, name: str) -> str:
    """Return the pattern that matches only this name."""
    if what == "queue":
        validate_queue_name(name)
    if _UNUSABLE.search(name):
        raise ConfigurationError(
            f"an ACL rule cannot name the {what} {name!r}: spaces, quotes and control characters are not allowed"
        )
    return _SPECIAL.sub(r"\\\1", name)


def _allow(commands: Iterable[str]) -> list[str]:
    return [f"+{command}" for command in commands]


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
