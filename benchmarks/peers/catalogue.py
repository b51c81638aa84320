"""Who is measured, in which settings, and how their workers are started. Imports no peer.

A setting is named in the words of the results: `recommended` is what the peer's pages start with, `best` what was the
quickest of what was tried; where both are the same it has neither word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DRAIN, IO, IDLE = "drain", "io", "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a peer's workers."""

    name: str
    group: str
    """Rows of one group are drawn in one picture: `10`, `50` or `two`."""
    command: str
    """Arguments of the worker; `{adapter}` is the module."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Read by the adapter."""
    environment: Mapping[str, str] = field(default_factory=dict)
    copies: int = 1
    """How often the command is started."""
    measures: frozenset[str] = frozenset({DRAIN})
    enqueues: bool = False
    """Whether enqueueing is measured with it: once for a peer."""

    @property
    def placement(self) -> str:
        """Two processes get all CPUs, one a CPU apart from Redis."""
        return "spread" if self.group == "two" else "apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A task queue."""

    name: str
    """Of its adapter, environment and rows."""
    packages: tuple[str, ...]
    """What is installed; nothing for this project."""
    distribution: str
    """Whose version is told."""
    page: str
    """Where the setting comes from."""
    settings: tuple[Setting, ...]
    node: bool = False


ALL = frozenset({DRAIN, IO, IDLE})


def other(
    name: str, command: str, kind: str, concurrency: int = 50, environment: Mapping[str, str] | None = None
) -> Setting:
    """Return a setting in which tasks are functions of the other kind than usual."""
    return Setting(
        name=name,
        group="50",
        command=command,
        values={"concurrency": concurrency, "kind": kind},
        environment=environment or {},
        measures=frozenset({DRAIN, IO}),
    )


def usual(
    command: str,
    *,
    what: str = "coroutines",
    two: str | None = None,
    copies: int = 1,
    values: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    word: str = "",
    measures: frozenset[str] = ALL,
    enqueues: bool = True,
) -> tuple[Setting, ...]:
    """Return concurrency 50, 10, and two processes of 50, with `{concurrency}` and `{processes}` in the command."""
    some, tail = dict(values or {}), f", {word}" if word else ""
    shared: dict[str, Any] = {"environment": environment or {}}

    def written(text: str, concurrency: int, processes: int) -> str:
        return text.replace("{concurrency}", str(concurrency)).replace("{processes}", str(processes))

    return (
        Setting(
            name=f"50 {what}{tail}",
            group="50",
            command=written(command, 50, 1),
            values={**some, "concurrency": 50},
            measures=measures,
            enqueues=enqueues,
            **shared,
        ),
        Setting(
            name=f"10 {what}{tail}",
            group="10",
            command=written(command, 10, 1),
            values={**some, "concurrency": 10},
            **shared,
        ),
        Setting(
            name=f"two processes of 50 {what}{tail}",
            group="two",
            command=written(two or command, 50, 2),
            values={**some, "concurrency": 50},
            copies=copies,
            **shared,
        ),
    )


_CELERY = "-m celery -A {adapter} worker --loglevel ERROR"
_CELERY_QUIET = f"{_CELERY} --without-gossip --without-mingle --without-heartbeat"
_PREFETCH = {"prefetch": 64}
_TASKIQ = "-m taskiq worker {adapter}:broker --workers {processes} --max-async-tasks {concurrency} --log-level ERROR"
_TASKIQ_50 = _TASKIQ.replace("{processes}", "1").replace("{concurrency}", "50")
_TASKQ = "-m taskq_core worker {adapter}:app --concurrency {concurrency} --verbosity 0"

PEERS: Sequence[Peer] = (
    Peer(
        name="taskq",
        packages=(),
        distribution="taskq-asynq",
        page="docs/how-to/run-a-worker.md",
        settings=(
            *usual(_TASKQ, copies=2),
            *usual(
                _TASKQ,
                copies=2,
                what="threads",
                values={"kind": "plain"},
                measures=frozenset({DRAIN, IO}),
                enqueues=False,
            ),
        ),
    ),
    Peer(
        name="celery",
        packages=("celery[redis]", "redis[hiredis]"),
        distribution="celery",
        page="https://docs.celeryq.dev/en/stable/userguide/optimizing.html",
        settings=(
            *usual(
                f"{_CELERY_QUIET} -P threads -c {{concurrency}}",
                what="threads",
                values=_PREFETCH,
                word="best: prefetch 64",
                copies=2,
            ),
            Setting(
                name="prefork, 1 child, recommended",
                group="50",
                command=f"{_CELERY} -P prefork -c 1",
                measures=frozenset({DRAIN, IDLE}),
            ),
            Setting(
                name="prefork, 1 child, best: prefetch 64",
                group="50",
                command=f"{_CELERY_QUIET} -P prefork -c 1",
                values=_PREFETCH,
            ),
            Setting(
                name="prefork, 2 children, best: prefetch 64",
                group="two",
                command=f"{_CELERY_QUIET} -P prefork -c 2",
                values=_PREFETCH,
            ),
        ),
    ),
    Peer(
        name="dramatiq",
        packages=("dramatiq[redis]", "redis[hiredis]"),
        distribution="dramatiq",
        page="https://dramatiq.io/advanced.html",
        settings=(
            *usual(
                "-m dramatiq {adapter} --processes {processes} --threads {concurrency}",
                what="threads",
                word="best: prefetch 200",
                environment={"dramatiq_queue_prefetch": "200"},
            ),
            other(
                "50 coroutines, best: prefetch 200",
                "-m dramatiq {adapter} --processes 1 --threads 50",
                "coroutine",
                environment={"dramatiq_queue_prefetch": "200"},
            ),
            Setting(
                name="8 threads, recommended",
                group="50",
                command="-m dramatiq {adapter} --processes 1 --threads 8",
            ),
        ),
    ),
    Peer(
        name="huey",
        packages=("huey", "redis[hiredis]"),
        distribution="huey",
        page="https://huey.readthedocs.io/en/latest/consumer.html",
        settings=usual(
            "-m huey.bin.huey_consumer {adapter}.huey --worker-type thread --workers {concurrency} --quiet",
            what="threads",
            copies=2,
        ),
    ),
    Peer(
        name="rq",
        packages=("rq", "redis[hiredis]"),
        distribution="rq",
        page="https://python-rq.org/docs/workers/",
        settings=(
            Setting(
                name="1 at a time, best: SimpleWorker",
                group="50",
                command="-m rq.cli worker bench --url {url} --quiet --worker-class rq.SimpleWorker",
                measures=ALL,
                enqueues=True,
            ),
            Setting(
                name="1 at a time, recommended: a fork for each",
                group="50",
                command="-m rq.cli worker bench --url {url} --quiet",
                values={"forks": True},
            ),
            Setting(
                name="two processes of 1, best: SimpleWorker",
                group="two",
                command="-m rq.cli worker bench --url {url} --quiet --worker-class rq.SimpleWorker",
                copies=2,
            ),
        ),
    ),
    Peer(
        name="arq",
        packages=("arq", "redis[hiredis]", "uvloop"),
        distribution="arq",
        page="https://arq-docs.helpmanual.io/",
        settings=(
            *usual(
                "-m {adapter}",
                copies=2,
                word="best: polls every 10 ms",
                values={"poll_delay": 0.01, "read_limit": 1000},
            ),
            Setting(
                name="50 coroutines, recommended",
                group="50",
                command="-m {adapter}",
                values={"concurrency": 50},
                measures=frozenset({DRAIN, IDLE}),
            ),
        ),
    ),
    Peer(
        name="taskiq",
        packages=("taskiq", "taskiq-redis", "redis[hiredis]", "uvloop", "orjson"),
        distribution="taskiq",
        page="https://taskiq-python.github.io/guide/cli.html",
        settings=(
            *usual(f"{_TASKIQ} --max-prefetch 200", word="best: lists", values={"broker": "list"}),
            Setting(
                name="50 coroutines, recommended: streams",
                group="50",
                command=_TASKIQ_50,
                measures=frozenset({DRAIN, IDLE}),
            ),
            other("50 threads", f"{_TASKIQ_50} --max-threadpool-threads 50", "plain"),
        ),
    ),
    Peer(
        name="saq",
        packages=("saq[redis,hiredis]", "uvloop", "typing_extensions"),  # the last is imported without being asked for
        distribution="saq",
        page="https://saq-py.readthedocs.io/en/latest/",
        settings=(
            *usual("-m saq {adapter}.settings --workers {processes} --quiet"),
            other("50 in a default pool of threads", "-m saq {adapter}.settings --workers 1 --quiet", "plain"),
        ),
    ),
    Peer(
        name="streaq",
        packages=("streaq", "uvloop"),
        distribution="streaq",
        page="https://streaq.readthedocs.io/en/latest/worker.html",
        settings=(
            *usual("-m {adapter}", copies=2, word="best: prefetch 200", values={"prefetch": 200}),
            Setting(
                name="50 coroutines, recommended",
                group="50",
                command="-m {adapter}",
                values={"concurrency": 50},
            ),
            other("50 threads", "-m {adapter}", "plain"),
        ),
    ),
    Peer(
        name="bullmq",
        packages=("bullmq", "redis[hiredis]", "uvloop"),
        distribution="bullmq",
        page="https://docs.bullmq.io/python/introduction",
        settings=usual("-m {adapter}", copies=2),
    ),
    Peer(
        name="bullmq-npm",
        packages=("bullmq", "ioredis"),
        distribution="bullmq",
        page="https://docs.bullmq.io/guide/workers/concurrency",
        settings=usual("benchmarks/peers/bullmq_npm.mjs worker", copies=2, what="at once"),
        node=True,
    ),
)
