"""Test limits as options: their meaning, their fields in a task, refused values and their errors."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import Concurrency, ConfigurationError, RateLimit, TaskArgumentsError, TaskContext, TaskQ, TaskSequence
from taskq_core.tasks.limits import HEADER, Limits, limit_of, parse_rate
from taskq_core.wire import decode_message
from tests.rows import rows


def carried(app: TaskQ, call: Any) -> str:
    """The limits of a call as it would be stored."""
    task = call.task
    limits = task.limits
    assert isinstance(limits, Limits)
    return limits.text(call.arguments)


@pytest.fixture
def app(fake_redis: Any) -> TaskQ:
    return TaskQ(fake_redis)


class TestWhatATaskCarries:
    def test_limits_are_listed_in_the_order_of_acquisition(self, app: TaskQ) -> None:
        @app.task(
            name="shop:pay", rate_limit="100/m", concurrency=(5, Concurrency(1, key="user_id")), sequence="user_id"
        )
        def pay(user_id: int) -> None: ...

        assert carried(app, pay.s(7)).split("\n") == [
            "s block 1 shop%3Apay:7",
            "c 1 1 shop%3Apay/key:7",
            "c 5 1 shop%3Apay:",
            "r b/100/60000/1 1 shop%3Apay:",
        ]

    @rows(
        ("value", "spec"),
        [
            ("100/m", "b/100/60000/1"),
            ("50/s", "b/50/1000/5"),
            ("3/10s", "b/3/10000/1"),
            (RateLimit("10/s", burst=7), "b/10/1000/7"),
            (RateLimit("10/h", window="fixed"), "w/10/3600000"),
        ],
    )
    def test_rates_are_normalized(self, app: TaskQ, value: Any, spec: str) -> None:
        """A bucket holds what comes in a tenth of a second, unless burst says otherwise."""
        task = app.remote("t", rate_limit=value)

        assert carried(app, task.s()) == f"r {spec} 1 t:"

    def test_keys_and_costs_come_from_arguments_and_their_defaults(self, app: TaskQ) -> None:
        @app.task(name="t", rate_limit=RateLimit("10/s", key=lambda user, zone: f"{user}@{zone}", cost="size"))
        def task(user: str, zone: str = "eu", size: int = 2) -> None: ...

        assert carried(app, task.s("ann")).endswith(" 2 t:ann@eu")
        assert carried(app, task.s("ann", size=4, zone="us")).endswith(" 4 t:ann@us")

    @rows(("key", "shown"), [(5, "5"), (None, "None"), (uuid.UUID(int=3), str(uuid.UUID(int=3))), ("a:b c", "a:b c")])
    def test_keys_of_many_types_are_supported(self, app: TaskQ, key: Any, shown: str) -> None:
        task = app.remote("t", sequence=lambda: key)

        assert carried(app, task.s()) == f"s block 1 t:{shown}"

    @rows("key", ["", " a", "ä", "a\nc 5 1 t:", "x" * 65, "#1", "\ud800"])
    def test_a_long_key_is_replaced_by_a_digest(self, app: TaskQ, key: str) -> None:
        text = carried(app, app.remote("t", sequence=lambda: key).s())

        assert len(text.split(":")[1]) == 33
        assert text.split(":")[1][0] == "#"

    def test_the_message_contains_the_limits(self, app: TaskQ) -> None:
        task = app.remote("t", concurrency=2, headers={"mine": "1"})
        prepared = app.client._preparer.prepare(task.s())

        assert decode_message(prepared.task.message).headers == {"mine": "1", HEADER: "c 2 1 t:"}
        assert limit_of(prepared.task.message) == prepared.task.limit == "c 2 1 t:"
        assert limit_of(b"taskq-limit and no message") == limit_of(b"") == ""

    def test_a_task_without_limits_adds_nothing_to_the_message(self, app: TaskQ) -> None:
        assert app.remote("t").limits is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rate_limit": "0/m"}, "at least 1"),
    ({"rate_limit": "-1/m"}, "a number and a period"),
    ({"rate_limit": "5"}, "a number and a period"),
    ({"rate_limit": "5/0s"}, "a period from 1 ms"),
    ({"rate_limit": "5/32d"}, "31 days"),
    ({"rate_limit": 5}, "a rate such as"),
    ({"concurrency": 0}, "between 1 and"),
    ({"concurrency": -2}, "between 1 and"),
    ({"concurrency": True}, "a whole number"),
    ({"concurrency": "5"}, "a number, a Concurrency"),
    ({"concurrency": (3, 5)}, "the same name"),
    ({"sequence": 5}, "a parameter's name"),
    ({"sequence": "not a name"}, "a parameter's name"),
    ({"sequence": "user"}, "'user', which the task does not have; parameters of the task: user_id"),
    ({"sequence": lambda user: user}, "'user', which the task does not have"),
    ({"sequence": lambda *users: users}, "name the parameters it needs"),
    ({"sequence": "context"}, "'context', which the task does not have"),
]


@rows(("options", "told"), REFUSED)
def test_an_invalid_limit_is_refused_at_definition_with_the_task_name(
    app: TaskQ, options: dict[str, Any], told: str
) -> None:
    def pay(context: TaskContext, user_id: int) -> None: ...

    with pytest.raises(ConfigurationError, match=r"^task 'shop\.pay': ") as refused:
        app.task(name="shop.pay", **options)(pay)
    assert told in str(refused.value)
    task = app.task(name="other")(pay)
    with pytest.raises(ConfigurationError, match=r"^task 'other': "):
        task.using(**options)


@rows(
    "build",
    [
        lambda: RateLimit("5/s", burst=0),
        lambda: RateLimit("5/s", burst=2, window="fixed"),
        lambda: RateLimit("5/s", window="sliding"),
        lambda: RateLimit("5/s", cost=0),
        lambda: RateLimit("5/s", cost=6, window="fixed"),
        lambda: RateLimit("5/s", key=5),  # type: ignore[arg-type]  # what is tested
        lambda: RateLimit("5/s", name="\n"),
        lambda: Concurrency(0),
        lambda: TaskSequence(None),
        lambda: TaskSequence("a", on_failure="stop"),
    ],
)
def test_invalid_limit_objects_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        build()


@rows(
    ("limit", "told"),
    [
        ({"rate_limit": RateLimit("5/s", cost=lambda: 0)}, "from 1 to"),
        ({"rate_limit": RateLimit("5/s", cost=lambda: 6, window="fixed")}, "from 1 to 5"),
        ({"rate_limit": RateLimit("5/s", cost=lambda: True)}, "a whole number"),
        ({"sequence": lambda: [1]}, "got list"),
        ({"sequence": lambda: 1 / 0}, "failed: ZeroDivisionError"),
        ({"sequence": "user"}, "needs"),
    ],
)
def test_a_call_with_an_invalid_key_or_cost_is_refused(app: TaskQ, limit: dict[str, Any], told: str) -> None:
    with pytest.raises(TaskArgumentsError, match=told):
        app.remote("t", **limit).delay(other=1)


def test_rates_are_parsed() -> None:
    assert parse_rate("5 / 10 s") == (5, 10_000)
    assert parse_rate("1/2ms") == (1, 2)
