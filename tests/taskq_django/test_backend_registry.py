"""Test that tasks of both Django interfaces share one registry and their names, and that one worker runs them."""

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskq_core import PayloadError, TaskArgumentsError, TaskDefinitionError
from taskq_core.tasks.schedule_setting import schedule_lines, scheduled_entries
from taskq_django import TaskQBackend, taskq
from taskq_django import task as taskq_task
from taskq_django.discovery import autodiscover
from taskq_django.tasks_backend.codec import JsonArgumentsCodec
from taskq_django.tasks_backend.framework import PACKAGE, InvalidTask, TaskResultStatus
from taskq_django.tasks_backend.running import BackendTask
from taskq_django.tasks_backend.tasks import TaskQTask
from taskq_django.testing import drain
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.parcels import tasks as parcels
from tests.taskq_django.parcels.tasks import task as django_task
from tests.taskq_django.shop.tasks import greet

HERE = "tests.taskq_django.test_backend_registry"
takes_options = pytest.mark.skipif(
    PACKAGE == "django.tasks" and not hasattr(TaskQTask, "_reconstruct"),
    reason="the decorator takes other options since Django 6.1",
)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Remove the tasks that a test registers."""
    before = dict(taskq.tasks)
    yield
    taskq._tasks.clear()
    taskq._tasks.update(before)


@pytest.fixture
def redis(redis_server: RedisServer, settings: Any) -> Iterator[RedisServer]:
    settings.TASKQ = {"URL": redis_server.unix_url, "ENQUEUE_TIMEOUT": 30}
    yield redis_server
    taskq.close()


def sort_out(parcel: int) -> str:
    """A function that tests turn into a task."""
    return f"{parcel} is sorted"


def pack(parcel: int) -> str:
    return f"{parcel} is packed"


def unpack(parcel: int) -> str:
    return f"{parcel} is unpacked"


def test_a_task_of_the_framework_is_registered_by_its_default_name() -> None:
    task = django_task(sort_out)

    assert isinstance(task, TaskQTask)
    known = taskq.tasks[f"{HERE}.sort_out"]
    assert isinstance(known, BackendTask)
    assert (known.function, known.task) == (sort_out, task)
    assert known(3) == "3 is sorted"


def test_copies_do_not_take_the_place_of_the_task() -> None:
    task = django_task(sort_out)
    task.using(priority=4, max_retry=9)
    known = taskq.tasks[f"{HERE}.sort_out"]

    assert isinstance(known, BackendTask)
    assert known.task is task
    assert known.options.max_retry == 0


def test_a_function_is_a_task_of_one_interface_only() -> None:
    django_task(pack)
    with pytest.raises(TaskDefinitionError, match=r"is already a task of django\.tasks"):
        taskq_task(pack)

    taskq_task(unpack)
    with pytest.raises(InvalidTask, match=r"cannot also be a task of django\.tasks"):
        django_task(unpack)


def test_a_task_cannot_be_made_a_task_again() -> None:
    with pytest.raises(InvalidTask, match="module level"):
        django_task(greet)
    with pytest.raises(TaskDefinitionError, match="must be a function"):
        taskq_task(parcels.label)


def test_a_taken_name_is_refused() -> None:
    taskq_task(name=f"{HERE}.sort_out")(pack)

    with pytest.raises(InvalidTask, match="is already used by"):
        django_task(sort_out)


def test_a_module_that_is_loaded_again_replaces_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loaded_again.py").write_text(f"from {PACKAGE} import task\n\n@task\ndef work() -> None: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("loaded_again")
    first = module.work

    module = importlib.reload(module)

    known = taskq.tasks["loaded_again.work"]
    assert isinstance(known, BackendTask)
    assert known.task is module.work
    assert known.task is not first


@pytest.mark.redis
def test_one_worker_runs_tasks_of_both_interfaces(redis: RedisServer) -> None:
    greet.delay("Ada")
    result = parcels.label.enqueue()

    assert sorted(run.name for run in drain()) == ["shop:greet", "tests.taskq_django.parcels.tasks.label"]
    result.refresh()
    assert result.status == TaskResultStatus.SUCCESSFUL


@pytest.mark.redis
def test_other_programs_enqueue_a_task_by_name(redis: RedisServer) -> None:
    """Schedules, the command line and Go programs know only name and payload. The result is found by the task id."""
    handle = taskq.remote("tests.taskq_django.parcels.tasks.weigh", retention=60).delay(parcel=3, exact=True)
    entry = {"task": "tests.taskq_django.parcels.tasks.label", "spec": "@hourly", "kwargs": {"colour": "red"}}
    (scheduled,) = scheduled_entries(schedule_lines({"label": entry}, zone="UTC"), taskq.tasks, taskq.remote)
    by_schedule = taskq.enqueue(scheduled.call)
    drain()

    found = parcels.weigh.get_result(handle.id)
    assert (found.return_value, found.args, found.kwargs) == ([3, "kg", True], [], {"parcel": 3, "exact": True})
    assert (found.enqueued_at, found.task) == (None, parcels.weigh)
    assert parcels.label.get_result(by_schedule.id).return_value == {"args": [], "kwargs": {"colour": "red"}}


@takes_options
def test_the_decorator_takes_the_options_of_taskq() -> None:
    task = django_task(max_retry=3, retry_on=ValueError, timeout=20)(sort_out)

    options = taskq.tasks[f"{HERE}.sort_out"].options
    assert (options.max_retry, options.retry_on, options.timeout) == (3, (ValueError,), 20)
    assert task.using(timeout=5).timeout == 5
    with pytest.raises(InvalidTask, match=r"retry_on=.* workers read it from the registered task"):
        task.using(retry_on=KeyError)
    with pytest.raises(TypeError, match="max_rety"):
        django_task(max_rety=3)(pack)
    with pytest.raises(InvalidTask, match="max_retry"):
        django_task(max_retry="many")(pack)


@pytest.mark.skipif(not hasattr(TaskQTask, "_reconstruct"), reason="tasks can be pickled since Django 6.1")
def test_a_task_with_options_is_pickled() -> None:
    task = parcels.label.using(max_retry=3, priority=2)

    assert pickle.loads(pickle.dumps(task)) == task


def test_a_task_can_be_hashed() -> None:
    assert len({parcels.label, parcels.label.using(), parcels.label.using(headers={"a": "b"})}) == 2


# --- arguments --------------------------------------------------------------------------------------------------------


def mixed(first: int, /, second: int = 2, *rest: int, third: int = 3, **others: int) -> None: ...


@rows(
    ("args", "kwargs", "payload"),
    [
        ((1,), {}, b'{"first":1}'),
        ((1, 5), {"third": 6}, b'{"first":1,"second":5,"third":6}'),
        ((1, 5, 7, 8), {"x": 9}, b'{"first":1,"second":5,"rest":[7,8],"others":{"x":9}}'),
        ((1,), {"second": 4, "first": 3}, b'{"first":1,"second":4,"others":{"first":3}}'),
        ((2**70,), {}, b'{"first":1180591620717411303424}'),
    ],
)
def test_arguments_are_stored_by_name_and_restored(args: Any, kwargs: Any, payload: bytes) -> None:
    codec = JsonArgumentsCodec(mixed, name="mixed", injected=frozenset())

    assert codec.encode(args, kwargs) == payload
    assert codec.split(codec.decode(payload), len(args)) == (list(args), kwargs)


@rows(
    ("payload", "problem"),
    [
        (b"", "missing"),
        (b"[]", "expected a JSON object"),
        (b"\xff", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"second":1}', "missing"),
        (b'{"first":1,"rest":5}', "expected a list"),
        (b'{"first":1,"others":[]}', "expected an object"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused(payload: bytes, problem: str) -> None:
    codec = JsonArgumentsCodec(mixed, name="mixed", injected=frozenset())

    with pytest.raises(PayloadError, match=problem):
        codec.decode(payload)


def test_unknown_fields_are_counted() -> None:
    codec = JsonArgumentsCodec(sort_out, name="sort_out", injected=frozenset())

    assert codec.decode_counting(b'{"parcel":1,"colour":2}') == ({"parcel": 1}, 1)
    assert codec.decode_counting(b'{"parcel":1}') == ({"parcel": 1}, 0)
    with pytest.raises(TaskArgumentsError, match="colour"):
        codec.encode((1,), {"colour": 2})


# --- import -----------------------------------------------------------------------------------------------------------


def test_the_backend_is_found_by_its_documented_path() -> None:
    import taskq_django

    assert taskq_django.TaskQBackend is TaskQBackend
    with pytest.raises(AttributeError, match="TaskQBackends"):
        _ = taskq_django.TaskQBackends


# --- found by name ----------------------------------------------------------------------------------------------------

TRACE = """import pathlib
from {package} import task

pathlib.Path({trace!r}).touch()

@task
def wrap(parcel: int) -> str:
    return f"{{parcel}} is wrapped"
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Return a module of an installed app that is not imported yet, and the file that its import creates."""
    import tests.taskq_django.parcels

    name, trace = "tests.taskq_django.parcels.elsewhere", tmp_path / "imported"
    (tmp_path / "elsewhere.py").write_text(TRACE.format(package=PACKAGE, trace=str(trace)))
    monkeypatch.setattr(tests.taskq_django.parcels, "__path__", [*tests.taskq_django.parcels.__path__, str(tmp_path)])
    yield name, trace
    sys.modules.pop(name, None)
    taskq.reload()


@pytest.mark.redis
def test_a_message_imports_no_module(redis: RedisServer, script: tuple[str, Path]) -> None:
    name, trace = script
    handle = taskq.remote(f"{name}.wrap", retention=60, max_retry=0).delay(parcel=3)

    drain(raises=False)

    assert not trace.exists()
    assert name not in sys.modules
    error = str(handle.refresh().last_error)
    assert error.startswith(f'handler not found for task "{name}.wrap"')
    assert "TASKQ['AUTODISCOVER']" in error


@pytest.mark.redis
def test_a_module_that_the_setting_names_has_tasks(redis: RedisServer, settings: Any, script: tuple[str, Path]) -> None:
    name, trace = script
    settings.TASKQ = {**settings.TASKQ, "AUTODISCOVER": ["tasks", name]}
    handle = taskq.remote(f"{name}.wrap", retention=60).delay(parcel=3)

    autodiscover()
    drain()

    assert trace.exists()
    assert parcels.label.get_backend().get_result(handle.id).return_value == "3 is wrapped"


@pytest.mark.redis
@pytest.mark.parametrize("is_named", [True, False])
def test_a_task_of_another_backend_is_run(
    redis: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch, is_named: bool
) -> None:
    """This needs an `AUTODISCOVER` that names the module."""
    immediate = f"{PACKAGE}.backends.immediate.ImmediateBackend"
    settings.TASKQ = {**settings.TASKQ, "AUTODISCOVER": [HERE] if is_named else True}
    settings.TASKS = {
        "default": {"BACKEND": immediate, "QUEUES": ["default", "odd"]},
        "broken": {"BACKEND": "nowhere.Backend"},
        "ours": {"BACKEND": "taskq_django.TaskQBackend"},
    }
    made = django_task(queue_name="odd")(sort_out)
    assert f"{HERE}.sort_out" not in taskq.tasks

    handle = taskq.remote(f"{HERE}.sort_out", retention=60, max_retry=0).delay(parcel=3)
    monkeypatch.setattr(sys.modules[HERE], "sort_out", made)  # as the decorator above it would
    drain(raises=False)

    if is_named:
        found = made.using(backend="ours", queue_name="default").get_result(handle.id)
        assert found.return_value == "3 is sorted"
    else:
        assert str(handle.refresh().last_error).startswith("handler not found")


@rows(
    "name",
    [
        "os.system",
        "this.s",
        "tests.taskq_django.parcels.tasks.LostError",
        "tests.taskq_django.parcels.tasks",
        "tests.taskq_django.parcels.missing.work",
        "email:welcome",
        "..",
        "",
    ],
)
def test_objects_that_are_no_tasks_are_not_registered(name: str) -> None:
    """The lookup imports nothing, because the name comes from Redis."""
    assert taskq.find_task("no.such") is None  # loads the modules that the lookup itself needs
    before = set(sys.modules)

    assert taskq.find_task(name) is None
    assert set(sys.modules) == before


@pytest.mark.redis
def test_the_class_of_a_stored_error_imports_no_module(redis: RedisServer, script: tuple[str, Path]) -> None:
    name, trace = script
    result = parcels.lose.enqueue(3)
    drain(raises=False)
    key = f"asynq:{{default}}:t:{result.id}"
    stored = redis.client.hgetall(key)
    result.refresh()
    assert result.errors[0].exception_class is parcels.LostError
    old, new = f"{parcels.__name__}.LostError".encode(), f"{name}.WrapError".encode()
    changed = {field: value.replace(old, new) for field, value in stored.items()}
    assert changed != stored
    redis.client.hset(key, mapping=changed)

    result.refresh()

    assert result.errors[0].exception_class_path == f"{name}.WrapError"
    with pytest.raises(ImportError, match="not imported in this process"):
        _ = result.errors[0].exception_class
    assert not trace.exists()


@pytest.mark.redis
@pytest.mark.filterwarnings("ignore::taskq_core.QueueUnservedWarning")
async def test_an_empty_list_of_queues_permits_any_queue(redis: RedisServer, settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": "taskq_django.TaskQBackend", "QUEUES": []}}
    result = await parcels.label.using(queue_name="of-this-customer").aenqueue(1)
    found = await parcels.label.aget_result(result.id)

    assert (found.args, found.task.queue_name) == ([1], "of-this-customer")
    assert parcels.label.get_result(result.id) == found
