"""Send the welcome mail, at most once in 24 hours to each customer, however often it is requested."""

from datetime import timedelta

from example_project.studio.models import Customer
from example_project.studio.tasks import send_email
from taskq_core import DuplicateTaskError, Signature, TaskHandle, TaskIdConflictError

ONE_IN = timedelta(hours=24)


def welcome(customer: Customer) -> Signature[None]:
    """Return the call that sends a customer's welcome.

    The task has the customer in its id and is kept for 24 hours after the mail was sent: so long another one under this
    id is refused. Until the mail is sent the unique lock keeps out equal ones under any other id too.
    """
    body = f"Hello {customer.name}, your pictures await you."
    call = send_email.s(customer.email, "Welcome to the studio", body)
    return call.using(task_id=f"welcome:{customer.pk}", unique_for=ONE_IN, retention=ONE_IN)


def welcome_again(customer: Customer) -> TaskHandle[None] | None:
    """Send the welcome mail again to a customer who did not receive it.

    Return None if a mail waits, was sent within 24 hours, or failed for good and is in the archive.
    """
    try:
        return welcome(customer).delay()
    except (TaskIdConflictError, DuplicateTaskError):
        return None
