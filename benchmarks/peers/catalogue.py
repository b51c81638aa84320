"""The catalogue of peers (other task queues): their settings, and how to start their workers. Imports no peer.

A setting has the name that the results show. `recommended`: as the peer's documentation recommends. `best`: the fastest
setting that was tried. If both are the same, the name contains neither word.
"""

from collections.abc import Sequence

from benchmarks.peers.settings import ALL, DRAIN, IDLE, IO, Peer, Setting, other, usual

_CELERY = "-m celery -A {adapter} worker --loglevel ERROR"
_CELERY_QUIET = f"{_CELERY} --without-gossip --without-mingle --without-heartbeat"
_PREFETCH = {"prefetch": 64}
_TASKIQ = "-m taskiq worker {adapter}:broker --workers {processes} --max-async-tasks {concurrency} --log-level ERROR"
_TASKIQ_50 = _TASKIQ.replace("{processes}", "1").replace("{concurrency}", "50")
_TASKQ = "-m taskq_core worker {adapter}:app --concurrency {concurrency}"

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
                fewest=1000,  # a worker reads 250 tasks each half second
            ),
        ),
    ),
    Peer(
        name="taskiq",
        packages=("taskiq", "taskiq-redis", "redis[hiredis]", "uvloop", "orjson"),
        distribution="taskiq",
        page="https://taskiq-python.github.io/guide/cli.html",
        settings=(
            *usual(_TASKIQ, word="streams"),
            Setting(
                name="50 coroutines, lists, prefetch 200",
                group="50",
                command=f"{_TASKIQ_50} --max-prefetch 200",
                values={"concurrency": 50, "broker": "list"},
                measures=frozenset({DRAIN, IDLE}),
            ),
            other("50 threads", f"{_TASKIQ_50} --max-threadpool-threads 50", "plain"),
        ),
    ),
    Peer(
        name="saq",
        # saq imports typing_extensions, but does not require it.
        packages=("saq[redis,hiredis]", "uvloop", "typing_extensions"),
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
