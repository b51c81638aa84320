"""The same views with and without an enqueue."""

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.django_site.tasks import note


def plain(request: HttpRequest) -> HttpResponse:
    """Return a response without an enqueue."""
    return HttpResponse("ok")


def delaying(request: HttpRequest) -> HttpResponse:
    """Enqueue a task and return a response."""
    note.delay(7, "some text")
    return HttpResponse("ok")


urlpatterns = [
    path("plain", plain),
    path("delaying", delaying),
    path("atomic/plain", transaction.atomic(plain)),
    path("atomic/delaying", transaction.atomic(delaying)),
]
