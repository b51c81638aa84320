"""Links by which people answer waiting tasks from an e-mail, without an account.

::

    app.include_router(approval_router(secret=SECRET), prefix="/approvals")

    url = approval_url(context, "review", secret=SECRET, base_url=f"{SITE}/approvals", question="Publish this photo?")
    await context.astep("ask", send_mail, "editor@example.com", url)
    if await context.areceive("review", bool, timeout=timedelta(days=7), ask={"photo": 7}): ...
"""

from typing import Unpack
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from taskq_core import ConfigurationError, TaskContext
from taskq_core.views.approvals import HEADERS, LinkOptions, answer, link_token
from taskq_fastapi.applications import DEFAULT_NAME, find

SECRET_MIN = 16
"""Minimum number of characters of a secret."""


def approval_url(context: TaskContext, name: str, *, secret: str, base_url: str, **options: Unpack[LinkOptions]) -> str:
    """Return a link by which a person answers the next `receive(name)` of this task. The first answer counts.

    Every person who has the link can answer, and can read its content.

    Args:
        context: The context of the running task.
        name: Name of the signal or of the question.
        secret: The secret of `approval_router`.
        base_url: Address of `approval_router`, such as "https://shop.example.com/approvals".
        **options: Title, buttons and duration of the link; see `LinkOptions`.

    Raises:
        StepError: A value has no JSON form, or the name is not valid.
        ConfigurationError: The secret is too short, `choices` is empty, or the time is not valid.
    """
    return f"{base_url.rstrip('/')}/{link_token(context, name, options, secret=_checked(secret))}"


def approval_router(*, secret: str, name: str = DEFAULT_NAME) -> APIRouter:
    """Return a router with the page of the links that `approval_url` makes.

    Args:
        secret: The key of the signatures, at least 16 characters.
        name: Name of the queue application in `taskq_lifespan`.

    Raises:
        ConfigurationError: The secret is too short.
    """
    router, secrets = APIRouter(include_in_schema=False), (_checked(secret),)

    @router.api_route("/{token}", methods=["GET", "HEAD", "POST"])
    async def show_approval(request: Request, token: str) -> HTMLResponse:
        """Show the question of a link, and send the answer in a POST."""
        app = find(request, name)
        pressed = None
        if request.method == "POST":  # Starlette needs another package to read forms
            body = (await request.body()).decode(errors="replace")
            pressed = {**request.query_params, **dict(parse_qsl(body, keep_blank_values=True))}
        plan = answer(app, token, secrets, pressed)
        status, page = await app.runtime.source.arun(plan)
        return HTMLResponse(page, status, headers=dict(HEADERS))

    return router


def _checked(secret: str) -> bytes:
    if not isinstance(secret, str) or len(secret) < SECRET_MIN:
        raise ConfigurationError(
            f"approval links need a secret of at least {SECRET_MIN} characters; make one with "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return secret.encode()
