"""Define the background tasks of the studio. The Django site and the FastAPI app enqueue them; `runworker` runs them.

A task may run twice, for example after a crash. So each task writes its result to a file whose name depends only on the
task's arguments.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import PurePosixPath

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.mail import EmailMessage, get_connection, send_mail
from django.core.mail.backends.base import BaseEmailBackend
from django.db.models import Count
from django.db.models.functions import TruncDate
from django.utils import timezone
from fastapi import Depends
from opentelemetry import trace
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from example_project.studio.models import Customer, Photo
from taskq_core import SkipRetry, TaskContext
from taskq_django import task, taskq
from taskq_django.approvals import approval_url
from taskq_fastapi import enable_depends

tracer = trace.get_tracer(__name__)


enable_depends(taskq)


def mail_server() -> Iterator[BaseEmailBackend]:
    """Yield a connection to the mail server. It is closed when the task has ended."""
    connection = get_connection()
    try:
        yield connection
    finally:
        connection.close()


@task(name="email:deliver", queue="critical", max_retry=5, timeout=30)
def send_email(to: str, subject: str, body: str, server: BaseEmailBackend = Depends(mail_server)) -> None:  # noqa: B008
    """Send a mail over SMTP. If the mail server cannot be reached, the task is retried."""
    with tracer.start_as_current_span("smtp.send"):
        EmailMessage(subject, body, to=[to], connection=server).send()


@task(name="image:resize", timeout=60)
def resize_image(path: str, width: int) -> str:
    """Store a copy of an image that is at most `width` pixels wide. Return its path."""
    with opened(path) as image:
        with tracer.start_as_current_span("image.resize", attributes={"image.width": width}):
            image.thumbnail((width, image.height))
        return store(image, path, f"{width}px")


@task(name="image:watermark", timeout=60)
def watermark_image(path: str, text: str) -> str:
    """Store a copy of an image with a text across its lower edge. Return its path."""
    with opened(path) as image:
        with tracer.start_as_current_span("image.watermark"):
            size = max(12, image.height // 16)
            draw = ImageDraw.Draw(image, "RGBA")
            draw.rectangle((0, image.height - 2 * size, image.width, image.height), fill=(0, 0, 0, 96))
            draw.text((size // 2, image.height - 1.75 * size), text, fill=(255, 255, 255, 224), font_size=size)
        return store(image, path, "watermark")


@task(name="image:compress", queue="low", timeout=60)
def compress_image(path: str, quality: int) -> str:
    """Store a copy of an image as a JPEG of this quality (1 to 95). Return its path."""
    with opened(path) as image:
        return store(image, path, f"q{quality}", suffix=".jpg", quality=quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Numbers of customers and photos."""

    customers: int
    photos: int
    photos_by_day: dict[str, int]


@task(name="photo:publish", timeout=60)
def publish_photo(context: TaskContext, photo_id: int) -> list[str]:
    """Publish a photo after the editor has approved it. Return the paths of its copies, none if it was rejected.

    The task waits up to a week for the answer and for its sub-tasks, without a worker. Each run repeats the function
    from its beginning, and each step only once.
    """
    photo = Photo.objects.get(pk=photo_id)
    link = approval_url(context, "review", base_url=settings.SITE_URL, question=f"Publish the photo {photo.title!r}?")
    context.step("ask", send_mail, f"Publish {photo.title}?", link, None, [settings.EDITOR_EMAIL])
    context.emit("waiting for the editor")
    if not context.receive("review", bool, timeout=timedelta(days=7), default=False):
        return []
    context.emit("approved")
    paths = context.call(*(resize_image.s(photo.image.name, width=width) for width in (320, 800)))
    context.step("publish", Photo.objects.filter(pk=photo_id).update, published_at=timezone.now())
    return paths


@task(name="report:studio", timeout=60)
async def build_report() -> Report:
    """Count the customers and photos in the database."""
    with tracer.start_as_current_span("report.query"):
        by_day = Photo.objects.order_by().annotate(day=TruncDate("uploaded_at")).values("day").annotate(n=Count("id"))
        return Report(
            customers=await Customer.objects.acount(),
            photos=await Photo.objects.acount(),
            photos_by_day={str(row["day"]): row["n"] async for row in by_day.order_by("day")},
        )


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """Open a stored image, upright. If the file is not an image, archive the task, because a retry cannot succeed."""
    with tracer.start_as_current_span("image.open"), default_storage.open(path) as file:
        try:
            image = ImageOps.exif_transpose(Image.open(file))
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        except (UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise SkipRetry(f"cannot read the image: {type(error).__name__}") from error
    with image:
        yield image


def store(image: Image.Image, path: str, variant: str, *, suffix: str | None = None, quality: int = 90) -> str:
    """Store a processed image under the name of the original and the variant. Return its path."""
    original = PurePosixPath(path)
    suffix = suffix or original.suffix
    kind = "PNG" if suffix == ".png" else "JPEG"
    data = BytesIO()
    with tracer.start_as_current_span("image.store", attributes={"image.format": kind}):
        (image if kind == "PNG" else image.convert("RGB")).save(data, kind, quality=quality, optimize=True)
        return default_storage.save(f"processed/{original.stem}-{variant}{suffix}", ContentFile(data.getvalue()))
