"""Classes that an adapter knows travel as their keys: the rule itself, with things kept in a dict."""

from collections.abc import Hashable, Iterator
from typing import Any

import pytest

from taskq_core import MissingReferenceError, Signature, TaskArgumentsError, TaskContext, TaskQ
from taskq_core.codec import KeysToLoad, LoadedObjects, RefusedError
from taskq_core.tasks.middleware import Middleware
from taskq_core.testing import capture


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name


class Things:
    """Knows things, by their names."""

    label = "Thing"

    def __init__(self) -> None:
        self.stored: dict[Hashable, object] = {}
        self.asked: list[list[Hashable]] = []

    def kind(self, type_: type) -> "Things | None":
        return self if type_ is Thing else None

    def to_json(self, value: object) -> object:
        return value.name if isinstance(value, Thing) else value

    def to_key(self, value: object) -> Hashable:
        if not isinstance(value, str):
            raise RefusedError(f"expected the name of a thing, got {type(value).__name__}")
        return value

    def fetch(self, keys_to_load: KeysToLoad) -> LoadedObjects:
        self.asked += keys_to_load.values()
        return {
            kind: {key: self.stored[key] for key in keys if key in self.stored} for kind, keys in keys_to_load.items()
        }

    async def afetch(self, keys_to_load: KeysToLoad) -> LoadedObjects:
        return self.fetch(keys_to_load)


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.fixture
def taskq(things: Things, fake_redis: Any) -> Iterator[TaskQ]:
    app = TaskQ(fake_redis)
    app.references = things
    yield app
    app.close()


def test_keys_are_stored_and_values_are_loaded(taskq: TaskQ, things: Things) -> None:
    """All of a kind are asked for at once, each once, where the function would begin: inside the middleware."""
    seen: list[Any] = []
    hammer, saw = Thing("hammer"), Thing("saw")
    things.stored = {"hammer": hammer, "saw": saw}

    class Noting(Middleware):
        def enqueue(self, call: Signature[Any]) -> Signature[Any]:
            seen.append(dict(call.arguments))
            return call

        def around(self, context: TaskContext, call: Any) -> object:
            seen.append(len(things.asked))
            return call()

    @taskq.task(name="use")
    def use(context: TaskContext, thing: Thing, rest: tuple[list[Thing], int], spare: Thing | None = None) -> None:
        seen.append((context.name, thing, rest, spare))

    taskq.use(Noting())
    with capture(taskq) as tasks:
        use.delay(hammer, ([saw, hammer], 3))
        assert tasks.enqueued[0].payload == b'{"thing":"hammer","rest":[["saw","hammer"],3]}'
        tasks.run()

    assert seen == [
        {"thing": hammer, "rest": ([saw, hammer], 3)},
        0,
        ("use", hammer, ([saw, hammer], 3), None),
    ]
    assert things.asked == [["hammer", "saw"]]


async def test_a_missing_value_ends_the_task(taskq: TaskQ, things: Things) -> None:
    @taskq.task(name="use")
    async def use(things: list[Thing]) -> None:
        raise AssertionError("it must not run")

    with capture(taskq) as tasks:
        await use.adelay([Thing(str(number)) for number in range(5)])
        (run,) = await tasks.arun(raises=False)

    assert run.outcome == "archived"
    assert isinstance(run.error, MissingReferenceError)
    assert str(run.error) == "no Thing with primary key 0, 1, 2 and 2 more, to which task 'use' refers"


def test_an_error_names_the_parameter_path(taskq: TaskQ) -> None:
    @taskq.task(name="use")
    def use(things: dict[str, list[Thing]]) -> None: ...

    with pytest.raises(TaskArgumentsError) as caught:
        use.delay({"a": [Thing("hammer"), 7]})  # type: ignore[list-item]

    assert str(caught.value) == (
        "task 'use', parameter 'things': expected the name of a thing, got int at [...][1] (position 1)"
    )
