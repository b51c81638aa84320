"""The task of the site's app."""

from taskq_django import task


@task(headers={"tenant": "acme"})
def note(number: int, text: str) -> None:
    """Do nothing."""
