"""A view that enqueues the requested tasks."""

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from taskq_core import chain, chord
from taskq_django import client
from tests.processes.otlp.depot import tasks
from tests.processes.otlp.depot.secret import SECRET


def enqueue(request: HttpRequest, what: str) -> HttpResponse:
    if what == "bulk":
        client.enqueue_many(tasks.apack.s(SECRET) for _ in range(3))
    elif what == "group":
        for _ in range(3):
            tasks.parcel.delay(SECRET)
    elif what == "later":
        tasks.apack.using(run_after=1, headers={"tenant": SECRET}).delay(SECRET)
    elif what == "flow":
        members = [chain(tasks.apack.s(SECRET), tasks.weigh.s()) for _ in range(2)]
        chord(members, tasks.load.s()).delay()
    elif what == "kept":  # in the outbox, because the queue is full
        with transaction.atomic():
            tasks.parcel.using(queue="full", aggregate=None).delay(SECRET)
    else:
        getattr(tasks, what).delay(SECRET)
    return HttpResponse("ok")


urlpatterns = [path("enqueue/<str:what>", enqueue)]
