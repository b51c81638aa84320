"""Tasks of the shop."""

import smtplib
from functools import partial

from celery import chain, shared_task
# TODO taskq: SoftTimeLimitExceeded is still imported from the package celery: at its timeout a plain function gets TaskInterrupted, and a coroutine is cancelled
from celery.exceptions import SoftTimeLimitExceeded
import logging
from taskq_core import Retry, TaskContext, chain as taskq_chain, chord, exponential, group
from taskq_django import task

logger = logging.getLogger(__name__)


@task(max_retry=0)
def tidy():
    logger.info("tidied")
    return "tidy"


@task(name="ping", retention=0, expires=20, max_retry=0)
def ping():
    pass


@task(max_retry=5, no_retry_on=Exception, retry_delay=10)
def send_mail(self: TaskContext, to, subject="Hello"):
    # the server is often away
    try:
        deliver(to, subject)
    except smtplib.SMTPException as exc:
        logger.warning("attempt %s of %s failed: %s", self.retried + 1, self.max_retry, self.id)
        raise Retry(after=2 ** self.retried) from exc
    return f"{subject} {to}"


@task(max_retry=4, retry_on=(ConnectionError, TimeoutError), retry_delay=exponential(1, limit=600))
def fetch(address):
    return len(address)


@task(queue="reports", rate_limit="10/m", timeout=60, executor="process", max_retry=0)
def build_report(kind, year=2000):
    return f"{kind} {year}"


@task(max_retry=0)
def add_up(sizes):
    return sum(sizes)


@task(max_retry=0)
def measure(self: TaskContext, count):
    for number in range(count):
        self.progress(number, count)
    return count


# TODO taskq: special remains a Celery task: the option base=object has no equivalent
@shared_task(bind=True, base=object)
def special(self):
    return self.request.hostname


# TODO taskq: careful remains a Celery task: the task uses SoftTimeLimitExceeded: at its timeout a plain function gets TaskInterrupted, and a coroutine is cancelled
@shared_task
def careful():
    try:
        tidy()
    except SoftTimeLimitExceeded:
        pass


# TODO taskq: odd remains a Celery task: a call in shop.tasks cannot be rewritten: .apply_async: a task of taskq has no such attribute; see delay(), using() and s()
@shared_task
def odd(address):
    return address


def deliver(to, subject):
    if not to:
        raise smtplib.SMTPException("nobody")


def later(address):
    # TODO taskq: .apply_async: a task of taskq has no such attribute; see delay(), using() and s()
    soon = partial(odd.apply_async, countdown=5)
    # TODO taskq: apply_async is called on an object that may not be a task; replace the call by hand
    soon.apply_async(args=[address])
    return chain(special.s(), careful.s())


def total(addresses):
    return chord((fetch.s(each) for each in addresses), add_up.s()).delay()


def one_after_the_other(address):
    work = taskq_chain(fetch.s(address), build_report.si("weekly").using(queue="reports", run_after=5))
    return work.delay()


def side_by_side():
    return (group(tidy.s(), tidy.s()) | add_up.si([1, 2])).delay()
