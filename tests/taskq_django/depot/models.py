"""Models with every kind of primary key."""

import uuid

from django.db import models


class Stamped(models.Model):
    class Meta:  # noqa: D106 - Django's, not ours
        abstract = True


class NotLost(models.Manager["Parcel"]):
    def get_queryset(self) -> models.QuerySet["Parcel"]:
        return super().get_queryset().filter(is_lost=False)


class Parcel(Stamped):
    to = models.CharField(max_length=50)
    is_lost = models.BooleanField(default=False)

    objects = NotLost()

    def __str__(self) -> str:
        return self.to


class FragileParcel(Parcel):
    """A model with a separate table, whose primary key is the key of its parent's row."""


class HeavyParcel(Parcel):
    class Meta:  # noqa: D106 - Django's, not ours
        proxy = True


class Shelf(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)

    def __str__(self) -> str:
        return str(self.id)


class Place(models.Model):
    pk = models.CompositePrimaryKey("shelf_id", "number")
    shelf = models.ForeignKey(Shelf, on_delete=models.CASCADE)
    number = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.shelf_id} {self.number}"


class Receipt(models.Model):
    parcel = models.OneToOneField(Parcel, on_delete=models.CASCADE, primary_key=True)

    def __str__(self) -> str:
        return str(self.parcel_id)


class Country(models.Model):
    code = models.CharField(max_length=2, primary_key=True)

    def __str__(self) -> str:
        return self.code
