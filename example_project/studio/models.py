from pathlib import PurePosixPath
from uuid import uuid4

from django.core.validators import FileExtensionValidator
from django.db import models


class Customer(models.Model):
    """A customer who has signed up."""

    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)
    joined_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


def original_path(photo: "Photo", filename: str) -> str:
    """Return the path for an uploaded file. Its name is unique, so that no upload replaces another."""
    return f"originals/{uuid4().hex}{PurePosixPath(filename).suffix.lower()}"


class Photo(models.Model):
    """An uploaded picture. `tasks` stores processed copies in other files."""

    title = models.CharField(max_length=100)
    image = models.ImageField(upload_to=original_path, validators=[FileExtensionValidator(["jpg", "jpeg", "png"])])
    uploaded_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:  # noqa: D106 - Django's own form
        ordering = ("-uploaded_at", "-id")

    def __str__(self) -> str:
        return self.title
