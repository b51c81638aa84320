from decimal import Decimal

from celery import chain, shared_task
from celery.utils.log import get_task_logger

from orders.record import record

logger = get_task_logger(__name__)
tries = {"deliver": 0, "pay": 0, "never": 0}


@shared_task
def take_order(customer, loaves=1):
    logger.info("order of %s", customer)
    record("take_order", customer, loaves)
    return {"customer": customer, "loaves": loaves}


@shared_task
def bake(loaves):
    return loaves * 2


@shared_task
def bake_all(kinds):
    record("bake_all", kinds)
    return sorted(kinds)


@shared_task
def price(loaves):
    return loaves * 3


@shared_task
def total(prices):
    return sum(prices)


@shared_task(bind=True, max_retries=3, default_retry_delay=1)
def deliver(self, address):
    try:
        drive_to(address, self.request.retries)
    except ConnectionError as exc:
        record("deliver failed", address, self.request.retries)
        raise self.retry(exc=exc, countdown=1)
    record("deliver", address)
    return f"delivered to {address}"


@shared_task(autoretry_for=(TimeoutError,), retry_kwargs={"max_retries": 2, "countdown": 1})
def pay(amount):
    tries["pay"] += 1
    record("pay", amount)
    if amount > 100:
        raise TimeoutError("the bank does not answer")
    return amount


@shared_task(bind=True)
def knead(self, minutes):
    for minute in range(minutes):
        self.update_state(state="PROGRESS", meta={"current": minute, "total": minutes})
    return minutes


@shared_task(ignore_result=True)
def notify(customer, text="ready"):
    record("notify", customer, text)


@shared_task
def plan(day):
    record("plan", day.isoformat(), day.year)
    return day.strftime("%d.%m.%Y")


@shared_task
def label(order, amount):
    record("label", type(order).__name__, str(order), str(amount + Decimal("0.10")))
    return str(amount * 2)


@shared_task(name="stock")
def stock(kind):
    record("stock", kind)
    return len(kind)


@shared_task(rate_limit="100/s", queue="mail")
def send_mail(to):
    record("send_mail", to)


@shared_task
def fail():
    record("fail")
    raise ValueError("burnt")


@shared_task
def count_loaves(kind):
    record("count_loaves", kind)


@shared_task
def close_day():
    record("close_day")


@shared_task
def start_day(kinds):
    chain(bake_all.s(kinds), summarize.s("day"))()


@shared_task
def summarize(kinds, title):
    record("summarize", kinds, title)


def drive_to(address, retries):
    if address == "hill" and retries < 2:
        raise ConnectionError("the road is closed")
