"""The studio's JSON API, which offers programs what `views` offers people."""

from collections.abc import AsyncIterator
from typing import Annotated

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import close_old_connections
from fastapi import APIRouter, Depends, HTTPException
from pydantic import AfterValidator, BaseModel, Field

from example_project.studio.models import Customer, Photo
from example_project.studio.tasks import Report, build_report, publish_photo, resize_image
from example_project.studio.welcome import welcome
from taskq_core import ResultTimeoutError, TaskIdConflictError
from taskq_fastapi import AcceptedDep, ClientDep, TaskAccepted


async def database() -> AsyncIterator[None]:
    """Close old database connections before and after a request, as Django does around its requests."""
    await sync_to_async(close_old_connections)()
    yield
    await sync_to_async(close_old_connections)()


router = APIRouter(dependencies=[Depends(database)])


def email_address(text: str) -> str:
    """Check an address as the Django site does."""
    try:
        validate_email(text)
    except ValidationError as error:
        raise ValueError(error.message) from None
    return text


class Signup(BaseModel):
    """Request body: a new customer."""

    name: str = Field(min_length=1, max_length=100)
    email: Annotated[str, Field(max_length=254), AfterValidator(email_address)]


class Resize(BaseModel):
    """Request body: the new width of a photo."""

    width: int = Field(ge=16, le=4096)


class FinishedReport(BaseModel):
    """Response body: a finished report task and its report."""

    id: str
    queue: str
    report: Report


@router.post("/signup", status_code=202)
async def signup(new: Signup, client: ClientDep, accepted: AcceptedDep) -> TaskAccepted:
    """Add a customer, and enqueue the welcome mail."""
    customer, is_new = await Customer.objects.aget_or_create(email=new.email, defaults={"name": new.name})
    if not is_new:
        raise HTTPException(409, "this address has signed up already")
    try:
        return accepted(await client.enqueue(welcome(customer)))
    except TaskIdConflictError:
        raise HTTPException(409, "this customer was welcomed within 24 hours") from None


@router.post("/photos/{photo_id}/resize", status_code=202)
async def resize(photo_id: int, new: Resize, client: ClientDep, accepted: AcceptedDep) -> TaskAccepted:
    """Enqueue a task that makes a smaller copy of a photo."""
    photo = await Photo.objects.filter(id=photo_id).afirst()
    if photo is None:
        raise HTTPException(404, "no such photo")
    return accepted(await client.enqueue(resize_image.s(photo.image.name, width=new.width)))


@router.post("/photos/{photo_id}/publish", status_code=202)
async def publish(photo_id: int, client: ClientDep, accepted: AcceptedDep) -> TaskAccepted:
    """Enqueue a task that publishes a photo after the editor has approved it. `stream_url` reports what it does."""
    if not await Photo.objects.filter(id=photo_id).aexists():
        raise HTTPException(404, "no such photo")
    return accepted(await client.enqueue(publish_photo.s(photo_id)))


@router.post("/reports")
async def report(client: ClientDep) -> FinishedReport:
    """Enqueue a report, and wait for its result."""
    handle = await client.enqueue(build_report.s())
    try:
        found = await handle.aresult(timeout=30)
    except ResultTimeoutError:
        raise HTTPException(504, "the report is not ready yet") from None
    return FinishedReport(id=handle.id, queue=handle.queue, report=found)
