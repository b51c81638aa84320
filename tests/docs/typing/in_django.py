"""Read by type checkers, never run. A line that ends in `# error` must be refused by each of them, no other may be."""

from typing import assert_type

from django import tasks
from django.contrib.auth.models import Group

from taskq_core import AsyncClient, Client, TaskContext, TaskHandle, chain, group
from taskq_django import async_client, client, periodic, schedule, task, taskq


@periodic("@daily")
@task
def welcome(user_id: int, subject: str = "") -> bool:
    return True


@task(queue="critical", max_retry=5)
async def archive(context: TaskContext, user_id: int) -> list[str]:
    return []


@task
def remind(group_: Group) -> str:
    return group_.name


@tasks.task
def greet(email: str) -> int:
    return 1


async def view() -> None:
    assert_type(welcome.delay(1, subject="Hi"), TaskHandle[bool])
    assert_type(await archive.adelay(1), TaskHandle[list[str]])
    assert_type(client, Client)
    assert_type(async_client, AsyncClient)
    assert_type(client.enqueue(welcome.s(1)), TaskHandle[bool])
    assert_type(await async_client.enqueue(archive.s(1)), TaskHandle[list[str]])
    assert_type(remind.delay(Group(name="staff")), TaskHandle[str])
    schedule("@hourly", welcome.s(user_id=1))
    welcome.delay("1")  # error
    welcome.delay(1, subjekt="Hi")  # error
    welcome.using(queue="low").delay()  # error
    await archive.adelay()  # error
    await archive.using(run_after=60).adelay("1")  # error
    remind.delay(1)  # error
    client.enqueue(welcome.s("1"))  # error
    client.enqueue_many(welcome.s(str(each)) for each in range(3))  # error
    await async_client.enqueue(archive.s("1"))  # error
    await async_client.enqueue_many([archive.s()])  # error
    schedule("@hourly", welcome.s("1"))  # error
    taskq.client.enqueue(welcome.s("1"))  # error
    welcome.map(["1"])  # error
    chain(welcome.s("1"), archive.si(1)).delay()  # error
    (welcome.s(1) | archive.si("1")).delay()  # error
    group(archive.s(each) for each in "ab").delay()  # error
    taskq.enqueue_workflow(group([welcome.s("1")]))  # error
    greet.enqueue("a@b.c")
    greet.enqueue(1)  # error
    greet.using(priority=1).enqueue()  # error
    await greet.aenqueue(1)  # error
