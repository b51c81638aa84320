import celery
from celery import group, shared_task

from drivers.tasks import assign, pause
from fleet.celery import app
from fleet.record import record


@app.task
def inspect_truck(number: int) -> str:
    record("inspect_truck", number)
    return f"truck {number} is fine"


@shared_task()
def wash(name):
    record("wash", name)


@celery.shared_task
def weigh(number):
    return number * 1000


@app.task(bind=True)
def who(self, *, loud: bool = False):
    record("who", self.name, loud)
    return self.name.upper() if loud else self.name


@shared_task(queue="garage")
def repair(number, parts=()):
    record("repair", number, list(parts))
    assign.delay(number, name="Ada")
    return len(parts)


@shared_task(acks_late=True, autoretry_for=[OSError], max_retries=2, default_retry_delay=1)
def tow(number):
    record("tow", number)
    raise OSError("no rope")


@shared_task(throws=(KeyError,))
def find(number):
    record("find", number)
    return {"1": "here"}[number]


@shared_task
def tour(numbers):
    record("tour", numbers)
    (group(weigh.s(number) for number in numbers) | sum_up.s()).delay()


@shared_task
def sum_up(weights):
    record("sum_up", weights)
    return sum(weights)


def rest(number):
    pause.apply_async((number,), {"minutes": 15}, countdown=1)
