"""What stands before all else: in which language is told what is told, and how often an address may ask."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from taskq_core.settings.language import translated_with
from taskq_fastapi.dashboard.languages import catalogue, language_of
from taskq_fastapi.dashboard.refusals import told_of_too_many
from taskq_fastapi.dashboard.site import secured
from taskq_fastapi.throttle import Throttle, TooManyError


def gate(throttle: Throttle) -> type[APIRoute]:
    """Return the class of the dashboard's route."""

    class Gate(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                with translated_with(catalogue(language_of(request))):
                    return await let_in(request)

            async def let_in(request: Request) -> Response:
                try:
                    visit = throttle.enter(request)
                except TooManyError as error:
                    return secured(PlainTextResponse(told_of_too_many(error), error.status_code, headers=error.headers))
                try:
                    return await handle(request)
                except HTTPException as error:  # of a dependency
                    visit.refuse(request, error.status_code, error.headers)
                    raise

            return answer

    return Gate
