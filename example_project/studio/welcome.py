"""Send the welcome mail to each customer at most once in 24 hours, even if it is requested more often."""

from datetime import timedelta

from example_project.studio.models import Customer
from example_project.studio.tasks import send_email
from taskq_core import DuplicateTaskError, Signature, TaskHandle, TaskIdConflictError

ONE_IN = timedelta(hours=24)


def welcome(customer: Customer) -> Signature[None]:
    """Return the call that sends the welcome mail to a customer.

    The id of the task contains the customer. The task is stored for 24 hours after the mail was sent. During this time,
    another task with this id is refused. Until the mail is sent, the unique lock also refuses an equal task with
    another id.
    """
    body = f"Hello {customer.name}, your pictures await you."
    call = send_email.s(customer.email, "Welcome to the studio", body)
    return call.using(task_id=f"welcome:{customer.pk}", unique_for=ONE_IN, retention=ONE_IN)


def welcome_again(customer: Customer) -> TaskHandle[None] | None:
    """Send the welcome mail again to a customer who did not receive it.

    Return None if the mail is still waiting, was sent within 24 hours, or has failed and its task is archived.
    """
    try:
        return welcome(customer).delay()
    except (TaskIdConflictError, DuplicateTaskError):
        return None
