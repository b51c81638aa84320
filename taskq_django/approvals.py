"""Links by which people answer waiting tasks from an e-mail, without an account.

::

    path("approvals/", include("taskq_django.approvals"))                 # in urls.py

    url = approval_url(context, "review", base_url="https://shop.example.com", question="Publish this photo?")
    context.step("ask", send_mail, "Please review", url, None, ["editor@example.com"])
    if context.receive("review", bool, timeout=timedelta(days=7), ask={"photo": 7}): ...
"""

from typing import Unpack

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils.encoding import force_bytes
from django.utils.translation import trans_real
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from taskq_core import TaskContext
from taskq_core.settings.language import translated_with
from taskq_core.views.approvals import HEADERS, LinkOptions, answer, link_token
from taskq_django.app import taskq


def approval_url(context: TaskContext, name: str, *, base_url: str, **options: Unpack[LinkOptions]) -> str:
    """Return a link by which a person answers the next `receive(name)` of this task. The first answer counts.

    Every person who has the link can answer, and can read its content. It is signed with `SECRET_KEY`.

    Args:
        context: The context of the running task.
        name: Name of the signal or of the question.
        base_url: Scheme and host of the site, such as "https://shop.example.com".
        **options: Title, buttons and duration of the link; see `LinkOptions`.

    Raises:
        StepError: A value has no JSON form, or the name is not valid.
        ConfigurationError: `choices` is empty, or the time is not valid.
    """
    token = link_token(context, name, options, secret=force_bytes(settings.SECRET_KEY))
    return base_url.rstrip("/") + reverse("taskq-approval", args=[token])


@csrf_exempt  # the link itself is the permission to answer
@require_http_methods(["GET", "HEAD", "POST"])
def show_approval(request: HttpRequest, token: str) -> HttpResponse:
    """Show the question of a link, and send the answer in a POST."""
    secrets = map(force_bytes, [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])
    pressed = {**request.GET.dict(), **request.POST.dict()} if request.method == "POST" else None
    with translated_with(trans_real.catalog()):
        status, page = taskq.runtime.source.run(answer(taskq, token, secrets, pressed))
    return HttpResponse(page, status=status, headers=dict(HEADERS))


urlpatterns = [path("<str:token>", show_approval, name="taskq-approval")]
