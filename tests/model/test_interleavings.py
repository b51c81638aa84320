"""Any two actors, their calls in every order, on a task in every state.

The store never contradicts itself, what was said to be done was done once, and who lost a task changes nothing.
"""

from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.reconcile import reconcile, run
from tests.model.actors import ACTORS, LATE, Actor, finisher, mover, remover
from tests.model.scenes import LATE_SCENES, SCENES, Scene
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

PAIRS = [
    pair
    for pair in combinations_with_replacement(ACTORS, 2)
    if pair != ("combiner", "combiner")  # a set has one
]


@pytest.fixture
def runner(redis_server: RedisServer) -> Iterator[SyncRunner]:
    runner = SyncRunner(Endpoint(redis_server.unix_url, embedded_folder=Path("unused")), timeout_s=30)
    yield runner
    runner.close()


def scenes_of(pair: tuple[str, str]) -> list[str]:
    """Where one of them has something to do: it may lead the other there."""
    one, other = (set(ACTORS[name][1]) for name in pair)
    return sorted(one | other)


def play(scene: Scene, actors: tuple[Actor, Actor], plan: list[int]) -> list[tuple[int, bool]]:
    """Let two actors go on in the order of the plan, and the first before the second where it ends.

    Returns:
        Who went at each step, and whether the other could have.
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
        scene.look()
    scene.check(may_be_told_twice=remover in actors and (mover in actors or finisher in actors))
    return steps


def orders(start: Any, actors: tuple[Actor, Actor]) -> Iterator[str]:
    """Play all orders of the actors' calls; yield each as it was played."""
    plan: list[int] | None = []
    while plan is not None:
        steps = play(start(), actors, plan)
        yield "".join(str(chosen) for chosen, _ in steps)
        plan = None
        for position in reversed(range(len(steps))):
            if steps[position] == (0, True):
                plan = [chosen for chosen, _ in steps[:position]] + [1]
                break


@pytest.mark.parametrize("pair", PAIRS, ids=[" and ".join(pair) for pair in PAIRS])
def test_two_actors_in_every_order(runner: SyncRunner, redis_server: RedisServer, pair: tuple[str, str]) -> None:
    for name in scenes_of(pair):

        def start(name: str = name) -> Scene:
            scene = Scene(runner.run, redis_server.client)
            SCENES[name](scene)
            return scene

        played: list[str] = []
        try:
            played.extend(orders(start, (ACTORS[pair[0]][0], ACTORS[pair[1]][0])))
        except AssertionError as error:
            raise AssertionError(f"{name}, after the orders {played}: {error}") from error
        assert played


@pytest.mark.parametrize("name", LATE)
def test_a_late_request_changes_nothing_in_every_order(
    runner: SyncRunner, redis_server: RedisServer, name: str
) -> None:
    """It arrived in time before, and arrives again while its sender goes on."""
    actors, scene_name = LATE[name]

    def start() -> Scene:
        scene = Scene(runner.run, redis_server.client)
        LATE_SCENES[scene_name](scene)
        return scene

    assert len(list(orders(start, actors))) > 1


@pytest.mark.parametrize("name", ACTORS)
def test_a_reconciler_takes_nothing_for_damage(runner: SyncRunner, redis_server: RedisServer, name: str) -> None:
    """Whatever another actor does between any two of its looks."""
    actor, scenes = ACTORS[name]
    for scene_name in scenes:
        position, asked = 0, 1
        while position <= asked:
            scene = Scene(runner.run, redis_server.client)
            SCENES[scene_name](scene)
            asked = 0

            def send(operation: Operation[Any], scene: Scene = scene, position: int = position) -> Any:
                nonlocal asked
                if asked == position:
                    for _ in actor(scene, "1"):
                        pass
                asked += 1
                if operation.name in {"probe", "mend", "relist"}:
                    operation.args = [str(scene.now_ns), *operation.args[1:]]
                return scene.ask(operation)

            report = run(reconcile(scene.queue, repair=True, look_again_s=0), send)

            assert not report.findings, (scene_name, position, report.findings)
            scene.check(may_be_told_twice=False)
            position += 1
