from celery import shared_task

from fleet.record import record


@shared_task
def assign(number, name):
    record("assign", number, name)
    return [number, name]


@shared_task
def pause(number, minutes=30):
    record("pause", number, minutes)


@shared_task
def shift(starts_at, ends_at=None):
    record("shift", starts_at.isoformat(), ends_at and ends_at.isoformat())
    return (ends_at - starts_at).total_seconds() if ends_at else None


@shared_task(bind=True, max_retries=2)
def call(self, name):
    record("call", name, self.request.retries)
    if self.request.retries == 0:
        raise self.retry(countdown=1)
    return f"{name} answered after {self.request.retries} of {self.max_retries}"


@shared_task
def greet(name, greeting="Hello"):
    return f"{greeting} {name}"


@shared_task
def shout(text):
    record("shout", text.upper())
    return text.upper()


@shared_task(ignore_result=True, expires=120)
def forget(name):
    record("forget", name)
