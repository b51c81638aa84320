"""Which aggregator is for which group, what it may look like, what it is given; the option that sends a task there."""

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import Signature, TaskQ
from taskq_core.errors import ConfigurationError, DuplicateTaskError, PayloadError, TaskDefinitionError
from taskq_core.tasks.aggregation import Aggregation, Aggregators, GroupedTask
from taskq_core.wire import TaskState, build_message
from tests.rows import rows


def one(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
    raise NotImplementedError


def two(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
    raise NotImplementedError


@pytest.fixture
def app(fake_redis: Any) -> TaskQ:
    return TaskQ(fake_redis)


class TestFind:
    def test_the_longest_matching_pattern_wins_and_then_the_queue(self) -> None:
        known = Aggregators()
        for pattern, queue in (("", None), ("", "mail"), ("user:", None), ("user:1", None), ("user:1", "mail")):
            known.add(Aggregation(function=one, pattern=pattern, queue=queue))

        found = {
            (queue, group): known.find(queue, group)
            for queue in ("mail", "other")
            for group in ("x", "user:2", "user:1", "user:17")
        }

        assert {key: each and (each.pattern, each.queue) for key, each in found.items()} == {
            ("mail", "x"): ("", "mail"),
            ("other", "x"): ("", None),
            ("mail", "user:2"): ("user:", None),
            ("other", "user:2"): ("user:", None),
            ("mail", "user:1"): ("user:1", "mail"),
            ("other", "user:1"): ("user:1", None),
            ("mail", "user:17"): ("user:1", "mail"),
            ("other", "user:17"): ("user:1", None),
        }

    def test_a_group_can_have_no_aggregator(self) -> None:
        known = Aggregators()
        known.add(Aggregation(function=one, pattern="user:"))
        known.add(Aggregation(function=one, queue="mail"))

        assert known.find("default", "order:1") is None
        assert known.of_queue("mail")
        assert known.find("mail", "order:1") is not None

    def test_a_pattern_can_be_registered_once(self, app: TaskQ) -> None:
        app.aggregator("user:")(one)
        app.aggregator("user:", queue="mail")(two)
        app.aggregator("user:", grace=5)(one)  # its module was imported again

        with pytest.raises(TaskDefinitionError) as caught:
            app.aggregator("user:")(two)

        assert str(caught.value) == (
            f"groups 'user:' already have the aggregator {__name__}.one; {__name__}.two needs another pattern or queue"
        )
        found = app.aggregators.find("default", "user:1")
        assert found is not None
        assert found.grace_s == 5

    def test_workers_with_the_same_aggregators_have_the_same_fingerprint(self) -> None:
        first, second, other = Aggregators(), Aggregators(), Aggregators()
        first.add(Aggregation(function=one, pattern="a"))
        first.add(Aggregation(function=one, pattern="b", queue="mail"))
        second.add(Aggregation(function=two, pattern="b", queue="mail"))
        second.add(Aggregation(function=two, pattern="a", grace=9))
        other.add(Aggregation(function=one, pattern="a"))

        assert first.fingerprint("mail") == second.fingerprint("mail") != other.fingerprint("mail")
        assert first.fingerprint("x") == other.fingerprint("x") != ""
        assert Aggregators().fingerprint("x") == ""


class TestDefinition:
    def test_the_decorator_returns_the_function_unchanged(self, app: TaskQ) -> None:
        assert app.aggregator()(one) is one

    def test_defaults_match_asynq(self) -> None:
        found = Aggregation(function=one)

        assert (found.grace_s, found.max_delay_s, found.max_size, found.timeout_s) == (60, 0, None, 120)
        assert not found.is_coroutine

    def test_times_are_rounded_up_to_whole_seconds(self) -> None:
        found = Aggregation(
            function=one, grace=1.2, max_delay=timedelta(milliseconds=2500), timeout=timedelta(minutes=1)
        )

        assert (found.grace_s, found.max_delay_s, found.timeout_s) == (2, 3, 60)

    @rows(
        ("options", "message"),
        [
            ({"grace": 0.5}, "grace must be at least one second, got 0.5"),
            ({"grace": "1m"}, "grace must be a timedelta or a number of seconds, got '1m'"),
            ({"max_delay": 0}, "max_delay must be at least one second, got 0"),
            ({"max_size": 0}, "max_size must be"),
            ({"max_size": 10_001}, "max_size must be"),
            ({"timeout": 0}, "timeout must be at least one second, got 0"),
            ({"pattern": " "}, "group name must not be blank"),
            ({"queue": ""}, "queue name must not be blank"),
        ],
    )
    def test_an_invalid_setting_is_refused(self, app: TaskQ, options: dict[str, Any], message: str) -> None:
        pattern = options.pop("pattern", "")

        with pytest.raises(ConfigurationError) as caught:
            app.aggregator(pattern, **options)(one)

        assert str(caught.value).startswith(message)
        assert not app.aggregators.of_queue("default")

    @rows("kind", ["number", "class", "generator", "parameters", "task"])
    def test_an_invalid_aggregator_is_refused(self, app: TaskQ, kind: str) -> None:
        def generator(group: str, tasks: list[GroupedTask]) -> Any:
            yield

        def short(group: str) -> None: ...

        @app.task
        def task(group: str, tasks: list[int]) -> None: ...

        functions: dict[str, Any] = {
            "number": 5,
            "class": dict,
            "generator": generator,
            "parameters": short,
            "task": task,
        }
        words = {
            "number": "must be a function, got 5",
            "class": "must be a function",
            "generator": "must not be a generator",
            "parameters": "must accept the group's name and its tasks, but .* does not: too many positional arguments",
            "task": "must be a function other than a task",
        }

        with pytest.raises(TaskDefinitionError, match=words[kind]):
            app.aggregator()(functions[kind])

    def test_a_partial_and_a_callable_object_can_be_an_aggregator(self, app: TaskQ) -> None:
        class Digest:
            async def __call__(self, group: str, tasks: list[GroupedTask], more: int = 0) -> Signature[Any]:
                raise NotImplementedError

        digest: Callable[..., Any] = Digest()
        app.aggregator("a")(digest)
        app.aggregator("b")(functools.partial(one))

        found = [app.aggregators.find("default", name) for name in "ab"]
        assert [each and each.is_coroutine for each in found] == [True, False]
        assert [each and each.name.rpartition(".")[2] for each in found] == ["Digest", "one"]


class TestGroupedTask:
    def test_a_grouped_task_has_the_fields_of_its_message(self, app: TaskQ) -> None:
        @app.task(name="t")
        def task(day: timedelta, more: int = 0) -> None: ...

        message = build_message(type="t", id="i", queue="q", payload=b'{"day":"P1D"}', headers={"k": "v"})

        found = GroupedTask(message, task.codec)

        assert (found.id, found.name, found.queue, found.payload) == ("i", "t", "q", b'{"day":"P1D"}')
        assert found.headers == {"k": "v"}
        assert found.kwargs == {"day": timedelta(days=1)}
        assert repr(found) == "<grouped task 'i' of 't'>"

    def test_the_payload_of_an_unknown_type_is_decoded_as_json(self) -> None:
        assert GroupedTask(build_message(payload=b'{"To":"a","N":[1]}'), None).kwargs == {"To": "a", "N": [1]}
        assert GroupedTask(build_message(), None).kwargs == {}

    @rows("payload", [b"canary", b"[1]", b'"canary"', b"\xff"])
    def test_an_invalid_payload_is_reported_when_it_is_read(self, payload: bytes) -> None:
        found = GroupedTask(build_message(payload=payload, type="t"), None)
        assert found.payload == payload

        with pytest.raises(PayloadError) as caught:
            _ = found.kwargs

        assert "canary" not in str(caught.value)


class TestOption:
    def test_a_task_waits_in_its_group(self, app: TaskQ) -> None:
        @app.task(aggregate="user:1", queue="mail")
        def notify(text: str) -> None: ...

        handle = notify.delay("hi")

        info = handle.refresh()
        assert (info.state, info.group, info.queue) == (TaskState.AGGREGATING, "user:1", "mail")
        assert handle.cancel()
        app.close()

    @pytest.mark.parametrize("none", [None, ""])
    def test_a_task_without_a_group_is_pending(self, app: TaskQ, none: str | None) -> None:
        @app.task(aggregate="user:1")
        def notify(text: str) -> None: ...

        assert notify.using(aggregate=none).delay("hi").refresh().state is TaskState.PENDING
        app.close()

    def test_a_bulk_enqueue_separates_grouped_and_pending_tasks(self, app: TaskQ) -> None:
        @app.task
        def notify(number: int) -> None: ...

        result = app.client.enqueue_many(
            notify.using(aggregate="odd" if number % 2 else None).s(number) for number in range(5)
        )

        assert [handle.refresh().group for handle in result] == ["", "odd", "", "odd", ""]
        app.close()

    async def test_coroutines_enqueue_to_groups(self, app: TaskQ) -> None:
        @app.task(unique_for=60)
        async def notify(text: str) -> None: ...

        grouped = notify.using(aggregate="g")
        handle = await grouped.adelay("hi")

        assert (await handle.arefresh()).state is TaskState.AGGREGATING
        with pytest.raises(DuplicateTaskError):
            await grouped.adelay("hi")
        later = await grouped.using(run_after=60).adelay("later")
        info = await later.arefresh()
        assert (info.state, info.group) == (TaskState.SCHEDULED, "g")
        await app.aclose()

    @rows(
        ("value", "message"),
        [
            (" ", "group name must not be blank"),
            (5, "group name must be a string, got int"),
            ("a\nb", "group name must not contain a control character"),
            ("x" * 257, "group name must be at most 256 bytes, got 257"),
        ],
    )
    def test_an_invalid_group_name_is_refused(self, app: TaskQ, value: Any, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            app.remote("t", aggregate=value)
