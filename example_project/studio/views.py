"""The studio's pages. A view enqueues slow work and responds at once. The page then shows the ids of the tasks."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from example_project.studio.forms import BatchForm, SignupForm, UploadForm
from example_project.studio.models import Photo
from example_project.studio.tasks import build_report, compress_image, resize_image, watermark_image
from example_project.studio.welcome import welcome
from taskq_core import Signature, TaskHandle, TaskIdConflictError
from taskq_django import client

WATERMARK = "studio.example.com"


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show the forms and the photos."""
    return page(request)


@require_POST
def signup(request: HttpRequest) -> HttpResponse:
    """Add a customer and enqueue the welcome mail. The task is sent at the commit, when the customer is stored."""
    form = SignupForm(request.POST)
    if not form.is_valid():
        return page(request, signup_form=form)
    handles = []
    # The task is sent at the commit, so a refused second mail raises its error there, and the customer stays stored.
    with suppress(TaskIdConflictError), transaction.atomic():
        customer = form.save()
        handles.append(welcome(customer).delay())
    return enqueued(request, [handle for handle in handles if handle.is_sent])


@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    """Store a photo, and enqueue a task that makes a small copy of it."""
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return page(request, upload_form=form)
    with transaction.atomic():
        photo = form.save()
        handle = resize_image.delay(photo.image.name, width=320)
    return enqueued(request, [handle])


@require_POST
def process(request: HttpRequest) -> HttpResponse:
    """Enqueue all operations on all selected photos, in one bulk call."""
    form = BatchForm(request.POST)
    if not form.is_valid():
        return page(request, batch_form=form)
    tasks = client.enqueue_many(operations(form.cleaned_data["photos"]))
    return enqueued(request, tasks)


def operations(photos: Iterable[Photo]) -> Iterator[Signature[str]]:
    """Yield every operation for each photo."""
    for photo in photos:
        path = photo.image.name
        yield resize_image.s(path, width=800)
        yield watermark_image.s(path, text=WATERMARK)
        yield compress_image.s(path, quality=60)


@require_POST
def report(request: HttpRequest) -> HttpResponse:
    """Enqueue a report."""
    return enqueued(request, [build_report.delay()])


def enqueued(request: HttpRequest, handles: Iterable[TaskHandle[Any]]) -> HttpResponse:
    """Redirect to the page, which then shows the tasks."""
    for handle in handles:
        messages.success(request, f"{handle.name} {handle.id}", extra_tags=handle.queue)
    return redirect("studio:home")


def page(request: HttpRequest, **forms: BaseForm) -> HttpResponse:
    """Render the page with the given forms, and empty forms for the others."""
    context = {
        "signup_form": SignupForm(),
        "upload_form": UploadForm(),
        "batch_form": BatchForm(),
        "photos": Photo.objects.all()[:12],
    }
    return render(request, "studio/home.html", {**context, **forms}, status=422 if forms else 200)
