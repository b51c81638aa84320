"""Run any two actors with their operations in every order, on a task in every state.

The store must stay consistent, acknowledged changes must happen exactly once, and a worker that lost a task must not
change it.
"""

from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.repair.reconcile import reconcile, run
from tests.model.actors import ACTORS, LATE, Actor, mover, remover
from tests.model.durable_scenes import RACES, DurableScene
from tests.model.scenes import LATE_SCENES, SCENES, Scene
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

PAIRS = [
    pair
    for pair in combinations_with_replacement(ACTORS, 2)
    if pair != ("combiner", "combiner")  # each aggregation set has only one combiner
]
FIRST = list(dict.fromkeys(pair[0] for pair in PAIRS))


@pytest.fixture
def runner(redis_server: RedisServer) -> Iterator[SyncRunner]:
    runner = SyncRunner(Endpoint(redis_server.unix_url, embedded_folder=Path("unused")), timeout_s=30)
    yield runner
    runner.close()


def scenes_of(pair: tuple[str, str], *, is_short: bool) -> list[str]:
    """Return the scenes in which both actors have work to do.

    Without such a scene, and in the long form, return the scenes in which one of them has work: it may create work for
    the other.
    """
    one, other = (set(ACTORS[name][1]) for name in pair)
    return sorted((is_short and one & other) or one | other)


def play(scene: Scene, actors: tuple[Actor, Actor], plan: list[int]) -> list[tuple[int, bool]]:
    """Run two actors in the order of the plan. After the end of the plan, run the first actor before the second.

    Returns:
        For each step: the actor's number, and whether the other actor could have run instead.
    """
    going: dict[int, Iterator[Any]] = {number: actor(scene, str(number + 1)) for number, actor in enumerate(actors)}
    steps: list[tuple[int, bool]] = []
    while going:
        wanted = plan[len(steps)] if len(steps) < len(plan) else min(going)
        chosen = wanted if wanted in going else min(going)
        could = len(going) == 2
        try:
            next(going[chosen])
        except StopIteration:
            del going[chosen]
            continue
        steps.append((chosen, could))
        if len(steps) >= len(plan):  # earlier steps were checked in an earlier order
            scene.read_queues()
    scene.check(allow_counted_twice=remover in actors and mover in actors)
    return steps


def orders(start: Any, actors: tuple[Actor, Actor]) -> Iterator[str]:
    """Run all orders of the actors' operations, and yield each order."""
    plan: list[int] | None = []
    while plan is not None:
        steps = play(start(), actors, plan)
        yield "".join(str(chosen) for chosen, _ in steps)
        plan = None
        for position in reversed(range(len(steps))):
            if steps[position] == (0, True):
                plan = [chosen for chosen, _ in steps[:position]] + [1]
                break


@pytest.mark.parametrize("form", ["short", pytest.param("long", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("first", FIRST)
def test_two_actors_in_every_order(runner: SyncRunner, redis_server: RedisServer, first: str, form: str) -> None:
    """Run one actor with every other actor, each pair in every scene."""
    for pair in [pair for pair in PAIRS if pair[0] == first]:
        for name in scenes_of(pair, is_short=form == "short"):

            def start(name: str = name) -> Scene:
                scene = Scene(runner.run, redis_server.client)
                SCENES[name](scene)
                return scene

            played: list[str] = []
            try:
                played.extend(orders(start, (ACTORS[pair[0]][0], ACTORS[pair[1]][0])))
            except AssertionError as error:
                raise AssertionError(f"{' and '.join(pair)}, {name}, after the orders {played}: {error}") from error
            assert played


def test_a_late_request_changes_nothing_in_every_order(runner: SyncRunner, redis_server: RedisServer) -> None:
    """The request arrived in time, and arrives again while its sender continues."""
    for name, (actors, scene_name) in LATE.items():

        def start(scene_name: str = scene_name) -> Scene:
            scene = Scene(runner.run, redis_server.client)
            LATE_SCENES[scene_name](scene)
            return scene

        try:
            assert len(list(orders(start, actors))) > 1
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("begin", RACES, ids=lambda begin: begin.__name__)
def test_a_durable_task_in_every_order(runner: SyncRunner, redis_server: RedisServer, begin: Any) -> None:
    """No wake-up, signal or result is lost, and no signal is stored twice."""
    for pair in combinations_with_replacement(RACES[begin], 2):

        def start() -> Scene:
            scene = DurableScene(runner.run, redis_server.client)
            begin(scene)
            return scene

        played: list[str] = []
        try:
            played.extend(orders(start, (RACES[begin][pair[0]], RACES[begin][pair[1]])))
        except AssertionError as error:
            raise AssertionError(f"{' and '.join(pair)}, after the orders {played}: {error}") from error
        assert len(played) > 1


def test_a_reconciler_finds_no_damage_while_an_actor_works(runner: SyncRunner, redis_server: RedisServer) -> None:
    """The actor runs between any two requests of the reconciler."""
    for name, scene_name in [(name, each) for name, (_, scenes) in ACTORS.items() for each in scenes]:
        actor = ACTORS[name][0]
        position, asked = 0, 1
        while position <= asked:
            scene = Scene(runner.run, redis_server.client)
            SCENES[scene_name](scene)
            asked = 0

            def send(
                operation: Operation[Any], scene: Scene = scene, position: int = position, actor: Actor = actor
            ) -> Any:
                nonlocal asked
                if asked == position:
                    for _ in actor(scene, "1"):
                        pass
                asked += 1
                if operation.name in {"probe", "repair_tasks", "relist"}:
                    operation.args, operation.deadline_at = [str(scene.now_ns), *operation.args[1:]], None
                return scene.execute(operation)

            report = run(reconcile(scene.queue, repair=True, recheck_s=0), send)

            assert not report.findings, (name, scene_name, position, report.findings)
            scene.check(allow_counted_twice=False)
            position += 1
