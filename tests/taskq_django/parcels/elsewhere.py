"""A task where no worker looks by itself."""

from tests.taskq_django.parcels.tasks import task


@task
def wrap(parcel: int) -> str:
    return f"{parcel} is wrapped"
