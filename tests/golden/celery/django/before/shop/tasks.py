"""Tasks of the shop."""

import smtplib
from functools import partial

from celery import chain, chord, group, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)


@shared_task
def tidy():
    logger.info("tidied")
    return "tidy"


@shared_task(name="ping", ignore_result=True, expires=20)
def ping():
    pass


@shared_task(bind=True, max_retries=5, default_retry_delay=10, acks_late=True)
def send_mail(self, to, subject="Hello"):
    # the server is often away
    try:
        deliver(to, subject)
    except smtplib.SMTPException as exc:
        logger.warning("attempt %s of %s failed: %s", self.request.retries + 1, self.max_retries, self.request.id)
        raise self.retry(exc=exc, countdown=2 ** self.request.retries)
    return f"{subject} {to}"


@shared_task(autoretry_for=(ConnectionError, TimeoutError), retry_backoff=True, retry_kwargs={"max_retries": 4})
def fetch(address):
    return len(address)


@shared_task(queue="reports", soft_time_limit=60, time_limit=90, rate_limit="10/m")
def build_report(kind, year=2000):
    return f"{kind} {year}"


@shared_task
def add_up(sizes):
    return sum(sizes)


@shared_task(bind=True)
def measure(self, count):
    for number in range(count):
        self.update_state(state="PROGRESS", meta={"current": number, "total": count})
    return count


@shared_task(bind=True, base=object)
def special(self):
    return self.request.hostname


@shared_task
def careful():
    try:
        tidy()
    except SoftTimeLimitExceeded:
        pass


@shared_task
def odd(address):
    return address


def deliver(to, subject):
    if not to:
        raise smtplib.SMTPException("nobody")


def later(address):
    soon = partial(odd.apply_async, countdown=5)
    soon.apply_async(args=[address])
    return chain(special.s(), careful.s())


def total(addresses):
    return chord(fetch.s(each) for each in addresses)(add_up.s())


def one_after_the_other(address):
    work = chain(fetch.s(address), build_report.si("weekly").set(queue="reports", countdown=5))
    return work.apply_async()


def side_by_side():
    return (group(tidy.s(), tidy.s()) | add_up.si([1, 2])).apply_async()
