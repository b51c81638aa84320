"""Compare taskq with its peers: choose the cases and their numbers of tasks, and add figures measured earlier."""

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.peers.cases import Runner
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.environments import environment_of
from benchmarks.peers.reference import reference_rows
from benchmarks.peers.settings import DRAIN, IDLE, IO, Peer, Setting
from benchmarks.peers.workflows import WITH_WORKFLOWS, workflow_cases
from benchmarks.placement import Placement
from benchmarks.results import Absent, Results, Row
from benchmarks.session import Case, CaseError, Figure, Found, Session, say
from tests.redis_server import RedisServer

Run = Callable[[RedisServer, Placement], Found]
_FIRST_TRIAL = 300
_TELLING_S = 0.2
_IDEAL_IO_PER_S = 5_000


def compare(options: argparse.Namespace, session: Session, command: str, keep: Callable[[Results], None]) -> None:
    """Measure the selected peers. After each round, pass the results so far to a callback."""
    started_s = time.monotonic()
    versions = {"python": platform.python_version()}
    cases: list[Case] = []
    for peer in PEERS:
        if (options.peer and peer.name not in options.peer) or (options.workflows and peer.name not in WITH_WORKFLOWS):
            continue
        try:
            say(f"{peer.name}: environment")
            environment = environment_of(peer, keep=options.keep)
        except CaseError as error:
            session.absent.append(Absent(system=peer.name, what="everything", reason=str(error)))
            continue
        versions[peer.name] = environment.version
        if options.workflows:
            cases += workflow_cases(peer, environment, options.tasks, options.only)
            continue
        for setting in peer.settings:
            runner = Runner(peer=peer, setting=setting, environment=environment)
            cases += _cases(peer, runner, options, session)
    earlier = [] if options.workflows else [row for row in reference_rows() if options.only in row.title]

    def found(rows: list[Row]) -> None:
        keep(
            session.results(
                command=command,
                started_s=started_s,
                rows=[*rows, *earlier],
                versions=versions,
                conditions={"seconds of a drain": options.seconds, "most tasks of a drain": options.tasks},
            )
        )

    session.measure(cases, found)


def _cases(peer: Peer, runner: Runner, options: argparse.Namespace, session: Session) -> list[Case]:
    """Return the selected cases of a setting. A trial determines the number of tasks."""
    setting = runner.setting
    placement = options.placement or setting.placement

    def chosen(figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
        return tuple(figure for figure in figures if not options.only or options.only in figure.title)

    def case(title: str, run: Run, figures: tuple[Figure, ...]) -> Case:
        title = f"{title}, {setting.name}"
        return Case(system=peer.name, setting=setting.name, title=title, placement=placement, run=run, figures=figures)

    drained = chosen(_drained(setting)) if DRAIN in setting.measures else ()
    waited = chosen(_waited(setting)) if IO in setting.measures else ()
    alone = chosen(_alone(setting)) if IDLE in setting.measures else ()
    cases: list[Case] = []
    if drained or waited:
        say(f"{peer.name}: trial, {setting.name}")
        try:
            rate = _trial(runner, session, partial(case, "trial", figures=()), options.tasks)
        except CaseError as error:
            say(f"    {error}")
            session.absent.append(Absent(system=peer.name, what=setting.name, reason=str(error)))
            return []
        count = min(options.tasks, max(setting.fewest, round(rate * options.seconds)))
        io_count = min(count, round(_IDEAL_IO_PER_S * options.seconds))
        if drained:
            cases.append(case("drain", partial(runner.drain, count=count), drained))
        if waited:
            cases.append(case("tasks of 10 ms", partial(runner.drain, count=io_count, kind="io"), waited))
    if alone:
        cases.append(case("idle and latency", runner.idle, alone))
    return cases


def _trial(runner: Runner, session: Session, case: Callable[[Run], Case], most: int) -> float:
    """Estimate how many tasks are drained a second: use more and more tasks until the run is long enough."""
    plain = replace(runner, setting=replace(runner.setting, enqueues=False))
    count = min(most, max(_FIRST_TRIAL, runner.setting.fewest))
    while True:
        found, _ = session.once(case(partial(plain.drain, count=count)))
        rate = found.figures["rate"]
        if count / rate > _TELLING_S or count == most:
            return rate
        count = min(most, 10 * count)


def _drained(setting: Setting) -> tuple[Figure, ...]:
    words, group = setting.name, setting.group
    enqueued = (
        ("sync", "one after another, blocking"),
        ("async", "one after another, one coroutine"),
        ("bulk", "bulk"),
    )
    return (
        Figure(name="rate", measure=f"drain {group}", title=f"drain, {words}", unit="tasks/s", higher_is_better=True),
        Figure(name="worker_cpu_us", measure=f"worker CPU {group}", title=f"worker's CPU a task, {words}", unit="us"),
        Figure(name="redis_cpu_us", measure=f"Redis CPU {group}", title=f"Redis's CPU a task, {words}", unit="us"),
        *(
            Figure(
                name=name, measure=f"enqueue {name}", title=f"enqueue, {what}", unit="tasks/s", higher_is_better=True
            )
            for name, what in (enqueued if setting.enqueues else ())
        ),
    )


def _waited(setting: Setting) -> tuple[Figure, ...]:
    title = f"tasks of 10 ms, {setting.name}"
    return (Figure(name="rate", measure="io", title=title, unit="tasks/s", higher_is_better=True),)


def _alone(setting: Setting) -> tuple[Figure, ...]:
    words = setting.name
    return (
        Figure(name="p50_ms", measure="latency p50", title=f"enqueue to start, median, {words}", unit="ms"),
        Figure(name="p99_ms", measure="latency p99", title=f"enqueue to start, 99 %, {words}", unit="ms"),
        Figure(name="start_up_s", measure="start-up", title=f"start of a worker to its first task, {words}", unit="s"),
        Figure(name="rss_mb", measure="idle RSS", title=f"idle: resident memory, {words}", unit="MB"),
        Figure(name="idle_commands", measure="idle commands", title=f"idle: commands in Redis, {words}", unit="/s"),
        Figure(name="idle_requests", measure="idle requests", title=f"idle: requests to Redis, {words}", unit="/s"),
        Figure(name="idle_cpu_percent", measure="idle CPU", title=f"idle: CPU, {words}", unit="%"),
    )
