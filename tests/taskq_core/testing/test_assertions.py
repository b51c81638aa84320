"""What `assert_enqueued` takes for equal, and what it says."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from taskq_core import TaskArgumentsError, TaskContext, TaskQ
from taskq_core.testing import Captured, capture


@pytest.fixture
def tasks(taskq: TaskQ) -> Iterator[Captured]:
    with capture(taskq) as tasks:
        yield tasks


@pytest.fixture
def send(taskq: TaskQ) -> Any:
    @taskq.task(name="send")
    def send(context: TaskContext, to: str, subject: str = "Hi", *, tags: list[str] | None = None) -> None: ...

    return send


def test_an_assertion_without_arguments_matches_any_call(tasks: Captured, send: Any) -> None:
    send.delay("a@b.c")
    send.delay("d@e.f")

    assert tasks.assert_enqueued(send) == tasks.enqueued
    assert tasks.assert_enqueued("send") == tasks.enqueued
    assert tasks.assert_enqueued(send.using(queue="other")) == tasks.enqueued


def test_an_assertion_with_some_arguments_matches_such_calls(tasks: Captured, send: Any) -> None:
    send.delay("a@b.c", subject="One")
    send.delay("a@b.c", tags=["x"])
    send.delay("d@e.f")

    assert len(tasks.assert_enqueued(send, to="a@b.c")) == 2
    assert len(tasks.assert_enqueued(send, "a@b.c", "One")) == 1
    assert len(tasks.assert_enqueued(send, tags=["x"])) == 1
    assert len(tasks.assert_enqueued("send", to="d@e.f")) == 1
    tasks.assert_not_enqueued(send, to="d@e.f", subject="One")
    tasks.assert_not_enqueued(send, to="nobody")


def test_an_assertion_with_a_signature_matches_exactly_this_call(tasks: Captured, send: Any) -> None:
    send.delay("a@b.c", subject="One")

    tasks.assert_enqueued(send.s("a@b.c", subject="One"))
    tasks.assert_enqueued(send.s(to="a@b.c", subject="One"))
    tasks.assert_not_enqueued(send.s("a@b.c"))
    tasks.assert_not_enqueued(send.s("a@b.c", subject="One", tags=["x"]))


def test_a_default_equals_its_value(tasks: Captured, send: Any) -> None:
    """It does not matter whether the call or the assertion leaves the default out."""
    send.delay("a@b.c")
    send.delay("a@b.c", subject="Hi")

    assert len(tasks.assert_enqueued(send, subject="Hi")) == 2
    assert len(tasks.assert_enqueued(send.s("a@b.c"))) == 2
    assert len(tasks.assert_enqueued(send.s("a@b.c", "Hi", tags=None))) == 2


def test_values_are_compared_in_their_decoded_form(tasks: Captured, taskq: TaskQ) -> None:
    @taskq.task(name="note")
    def note(value: Any, day: date | None = None) -> None: ...

    note.delay((1, 2), date(2030, 1, 2))

    tasks.assert_enqueued(note, (1, 2))
    tasks.assert_enqueued(note, [1, 2])
    tasks.assert_enqueued(note, day=date(2030, 1, 2))
    tasks.assert_enqueued(note.s((1, 2), date(2030, 1, 2)))


def test_assertions_accept_remote_tasks(tasks: Captured, taskq: TaskQ) -> None:
    remote = taskq.remote("go:task")
    remote.delay(To="a@b.c", Count=3)
    remote.delay(b"raw")

    tasks.assert_enqueued(remote, To="a@b.c", count=1)
    tasks.assert_enqueued(remote.s(To="a@b.c", Count=3), count=1)
    tasks.assert_enqueued(remote.s(b"raw"), count=1)
    tasks.assert_not_enqueued(remote.s(To="a@b.c"))
    with pytest.raises(TypeError, match="by name, because its code"):
        tasks.assert_enqueued(remote, b"raw")


def test_assertions_check_count_and_queue(tasks: Captured, send: Any) -> None:
    send.delay("a@b.c")
    send.using(queue="critical").delay("a@b.c")

    tasks.assert_enqueued(send, count=2)
    assert [task.queue for task in tasks.assert_enqueued(send, queue="critical", count=1)] == ["critical"]
    tasks.assert_not_enqueued(send, queue="low")


def test_parameters_named_like_options_are_given_by_a_signature(tasks: Captured, taskq: TaskQ) -> None:
    @taskq.task(name="note")
    def note(count: int, queue: str) -> None: ...

    note.delay(3, "here")

    tasks.assert_enqueued(note.s(count=3, queue="here"), count=1, queue="default")


def test_an_unknown_parameter_is_refused(tasks: Captured, send: Any) -> None:
    """Otherwise `assert_not_enqueued` would pass by a slip of the pen."""
    with pytest.raises(TaskArgumentsError, match="has no parameter 'too'; its parameters are to, subject, tags"):
        tasks.assert_not_enqueued(send, too="a@b.c")
    with pytest.raises(TaskArgumentsError, match="takes 2 positional arguments but 3 were given"):
        tasks.assert_not_enqueued(send, 1, 2, 3)
    with pytest.raises(TypeError, match="a signature already contains its arguments"):
        tasks.assert_not_enqueued(send.s("a@b.c"), "Hi")


@pytest.mark.parametrize("wrong", [None, len, object()])
def test_an_object_that_is_no_task_is_refused(tasks: Captured, wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected a task, the name of a task, or a signature, got "):
        tasks.assert_not_enqueued(wrong)


def test_an_invalid_argument_value_is_refused(tasks: Captured, send: Any) -> None:
    send.delay("a@b.c")

    with pytest.raises(TaskArgumentsError, match="to"):
        tasks.assert_not_enqueued(send, to=3)


@pytest.mark.filterwarnings("ignore::taskq_core.QueueUnservedWarning")
def test_a_failure_lists_the_enqueued_tasks(tasks: Captured, send: Any) -> None:
    send.delay("a@b.c")
    send.using(run_after=60, queue="low").delay("d@e.f", subject="Two")

    with pytest.raises(AssertionError) as caught:
        tasks.assert_enqueued(send, to="x@y.z", queue="low")

    assert str(caught.value) == (
        "send(to='x@y.z', ...) in 'low' was not enqueued; enqueued were:\n"
        "  send(to='a@b.c') in 'default'\n"
        "  send(to='d@e.f', subject='Two') in 'low', 0:01:00"
    )


@pytest.mark.parametrize(("count", "expected"), [(0, "0 times, but 1 time;"), (2, "2 times, but 1 time;"), (1, None)])
def test_a_failure_shows_the_number_of_calls(tasks: Captured, send: Any, count: int, expected: str | None) -> None:
    send.delay("a@b.c")

    if expected is None:
        tasks.assert_enqueued(send.s("a@b.c"), count=count)
    else:
        with pytest.raises(AssertionError) as caught:
            tasks.assert_enqueued(send.s("a@b.c"), count=count)
        assert f"send(to='a@b.c') was expected {expected}" in str(caught.value)


def test_assert_nothing_enqueued_lists_enqueued_tasks(tasks: Captured, send: Any) -> None:
    tasks.assert_nothing_enqueued()
    with pytest.raises(AssertionError, match="was not enqueued; nothing was enqueued"):
        tasks.assert_enqueued(send)
    send.delay("a@b.c")

    with pytest.raises(AssertionError, match="enqueued were:\n  send"):
        tasks.assert_nothing_enqueued()


def test_a_long_list_is_truncated(tasks: Captured, taskq: TaskQ) -> None:
    taskq.client.enqueue_many(taskq.remote("note").s(n=n) for n in range(25))

    with pytest.raises(AssertionError, match="and 5 more"):
        tasks.assert_nothing_enqueued()
