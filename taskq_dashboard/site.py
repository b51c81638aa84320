"""Answer the requests to one dashboard: authentication, pages, actions and errors."""

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from taskq_core import BrokerError, ConfigurationError, TaskQError
from taskq_core.settings.language import gettext, marked, pgettext, pmarked, translated_with
from taskq_core.views.event_streams import QUIET_S, Event, StateUnavailableError, Streams
from taskq_dashboard import flash, forgery, preferences
from taskq_dashboard.assets import FOLDER, Assets
from taskq_dashboard.errors import BadRequestError, NotFoundError
from taskq_dashboard.form import Form, posted
from taskq_dashboard.languages import catalogue, language_of
from taskq_dashboard.people import Role, User, ask_login
from taskq_dashboard.refusals import error_text
from taskq_dashboard.registry import ACTIONS, ASK, PAGES, Action, Done, Page
from taskq_dashboard.rendering import Rendering
from taskq_dashboard.view import Services, Shown, View, own_link
from taskq_fastapi.api.access import Audit, audit_logger
from taskq_fastapi.api.origin import is_from_elsewhere
from taskq_fastapi.api.problems import status_of
from taskq_fastapi.closed import refusal
from taskq_fastapi.router import streamed
from taskq_fastapi.throttle import LoginLimiter, let_in

logger = logging.getLogger("taskq.fastapi")

STREAM_S = 30.0
"""Seconds after which a stream ends. The browser reconnects, so that an expired login is noticed."""
STREAMS_MAX = 200
"""Maximum number of open streams of one dashboard in this process."""
PERSON_STREAMS_MAX = 20
"""Maximum number of open streams of one user. A page has a stream while it is visible."""
AWAY = marked("Redis does not answer. This page may be out of date. Retrying.")
OPEN_FOR = "see, change and delete every task"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers would send no origin with forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
STATUS = (
    pmarked("HTTP status", "Bad Request"),
    pmarked("HTTP status", "Forbidden"),
    pmarked("HTTP status", "Not Found"),
    pmarked("HTTP status", "Method Not Allowed"),
    pmarked("HTTP status", "Content Too Large"),
    pmarked("HTTP status", "Request Entity Too Large"),  # name of status 413 before Python 3.13
    pmarked("HTTP status", "Unsupported Media Type"),
    pmarked("HTTP status", "Too Many Requests"),
    pmarked("HTTP status", "Internal Server Error"),
)
"""Titles of error pages that are translated: the English phrases of HTTP statuses."""


class Site:
    """Answers the requests to one dashboard.

    Args:
        services: Its options and clients.
        limiter: Counts refused logins.
    """

    def __init__(self, services: Services, limiter: LoginLimiter) -> None:
        self.services = services
        self._limiter = limiter
        self._streams = Streams(most=STREAMS_MAX, life_s=STREAM_S, most_each=PERSON_STREAMS_MAX)
        self._assets = Assets()
        self._rendering = Rendering(
            self._assets,
            site_title=services.title,
            navigation=[(page.path, page.label) for page in PAGES.values() if page.label is not None],
            csrf_field=forgery.FIELD,
        )

    async def answer(self, request: Request, path: str) -> Response:
        """Answer a request. `path` is relative to the dashboard."""
        if self.services.is_closed:
            refusal("taskq_dashboard", OPEN_FOR, give="login=, or dependencies=[Depends(...)],")
            return secured(
                PlainTextResponse(
                    gettext("access is not configured; the log of the server explains how to allow it"), 403
                )
            )
        user = await self._who(request)
        if isinstance(user, Response):
            self._limiter.refuse(request, user.status_code, user.headers)
            return user
        if user is None:
            self._limiter.refuse(request, 403)
            language = language_of(request)
            refused = self._rendering.plain("refused.html", up="../" * path.count("/"), language=language)
            return secured(self._html(refused, 403, language))
        let_in(request)
        asset = self._assets.find(path) if path.startswith(f"{FOLDER}/") else None
        if asset is not None and request.method in ("GET", "HEAD"):
            return secured(asset.response(request))
        try:
            view = View(self.services, request, path, user)
        except BadRequestError:
            return secured(PlainTextResponse(gettext("the address cannot be read"), 400))
        return secured(await self._answer(view))

    async def _who(self, request: Request) -> User | Response | None:
        if self.services.login is not None:
            return await ask_login(self.services.login, request)
        return User(request.client.host if request.client else "unknown", Role.OPERATOR)

    async def _answer(self, view: View) -> Response:
        method = view.request.method
        try:
            if method in ("GET", "HEAD"):
                return await self._read(view)
            if method == "POST":
                return await self._act(view)
            raise HTTPException(405, gettext("this method is not allowed"), headers={"Allow": "GET, HEAD, POST"})
        except HTTPException as error:
            return self._error(view, error.status_code, str(error.detail), headers=error.headers)
        except (BadRequestError, ConfigurationError) as error:  # caused by a value in the request, such as a cursor
            return self._error(view, 400, error_text(error))
        except BrokerError as error:
            logger.warning("a request to the dashboard failed: %s", error)
            return self._away(view, error)
        except TaskQError as error:
            if isinstance(error, NotFoundError) or status_of(error) == 404:
                return self._error(view, 404, error_text(error))
            logger.warning("a request to the dashboard failed: %s", error, exc_info=True)
            return self._error(view, 500, error_text(error))

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self, view: View) -> Response:
        page, action = PAGES.get(view.path), ACTIONS.get(view.path)
        if page is not None:
            if page.needs_operator and view.user.role is not Role.OPERATOR:
                raise HTTPException(403, gettext("only operators may see this"))
            if "text/event-stream" in view.request.headers.get("accept", ""):
                return self._stream(view, page)
            shown = await page.show(view)
            return shown if isinstance(shown, Response) else self._shown(view, shown, is_live=page.is_live)
        if action is not None and action.ask is not None:
            self._check_allowed(view, action)
            return await self._ask(view, action, view.query)
        if action is not None:
            raise HTTPException(405, gettext("send this as a form (POST)"), headers={"Allow": "POST"})
        raise HTTPException(404, gettext("there is no such page"))

    async def _ask(self, view: View, action: Action, form: Form) -> Response:
        assert action.ask is not None
        question = await action.ask(view, form)
        repeated = [(name, value) for name, value in form.fields if name not in (forgery.FIELD, "back", ASK)]
        context = {
            **question.context,
            "question": question,
            "path": action.path,
            "carried": repeated,
            "back": own_link(form.get("back")) or "./",
        }
        shown = Shown(template="question.html", title=question.button, context=context)
        return self._shown(view, shown, is_live=False)

    def _stream(self, view: View, page: Page) -> Response:
        if not page.is_live or not view.preferences.interval:
            return Response(status_code=204)  # 204 stops the browser's EventSource from reconnecting
        if not self._streams.has_room(view.user.name):
            return PlainTextResponse(gettext("too many pages are open"), 503, headers={"Retry-After": "10"})

        loop = asyncio.get_running_loop()
        pause_s = max(view.preferences.interval, page.update_s)
        last: Event | None = None
        next_update = 0.0

        async def current() -> Event:
            again = View(self.services, view.request, view.path, view.user, is_stream=True)
            # The stream runs after the request, whose language no longer applies.
            with translated_with(catalogue(view.language)):
                try:
                    shown = await page.show(again)
                    if isinstance(shown, Response):
                        raise NotFoundError(gettext("this page has moved"))
                except BrokerError as error:
                    raise StateUnavailableError(json.dumps(gettext(AWAY))) from error
                except TaskQError as error:
                    return Event("gone", json.dumps(error_text(error)), is_last=True)
                return Event("page", json.dumps(self._rendering.contents(again, shown)))

        async def read() -> list[Event]:
            nonlocal last, next_update
            if last is None or loop.time() >= next_update:
                last, next_update = None, loop.time() + pause_s
                last = await current()
            return [last]

        async def wait(_is_changed: bool, left_s: float) -> bool:
            # Return at least every QUIET_S seconds, so that keep-alive comments are sent.
            await asyncio.sleep(min(next_update - loop.time(), QUIET_S, left_s))
            return not await view.request.is_disconnected()

        last_event_id = view.request.headers.get("last-event-id")
        return streamed(self._streams.events(read, wait, last_event_id=last_event_id, viewer=view.user.name))

    # --- acting -------------------------------------------------------------------------------------------------------

    async def _act(self, view: View) -> Response:
        action = ACTIONS.get(view.path)
        if action is None:
            if view.path in PAGES:
                raise HTTPException(405, gettext("a page can only be read (GET)"), headers={"Allow": "GET, HEAD"})
            raise HTTPException(404, gettext("there is no such page"))
        if is_from_elsewhere(view.request, self.services.trusted_origins):
            audit_logger.warning(
                "%s by %r: refused, because a page of another site sent it", action.path, view.user.name
            )
            raise HTTPException(403, gettext("a page of another site cannot do this"))
        self._check_allowed(view, action)
        form = await posted(view.request, most=action.body_max)
        if not view.has_sent(form):
            audit_logger.warning(
                "%s by %r: refused, because its form belongs to another user or browser", action.path, view.user.name
            )
            text = gettext("this form is too old, or belongs to another user: go back and reload the page")
            raise HTTPException(403, text)
        if action.ask is not None and form.get(ASK):
            return await self._ask(view, action, form)
        back = own_link(form.get("back")) or "./"
        facts = {name: values[0] if len(values := form.all(name)) == 1 else values for name in action.audited}
        try:
            with Audit(view.user.name).action(action.path, **facts) as outcome:
                try:
                    done = await action.perform(view, form)
                finally:
                    outcome.update(view.audited)
        except BrokerError:
            raise
        except TaskQError as error:
            done = Done(text=error_text(error), level="error")
        if isinstance(done, Shown):
            return self._shown(view, done, is_live=False)
        to = back if done.back is None else done.back
        response = Response(status_code=303, headers={"Location": to})
        self._set_cookie(view, response, flash.COOKIE, flash.packed(done.level, done.text))
        if view.new_preferences is not None:
            value = view.new_preferences.cookie
            self._set_cookie(view, response, preferences.COOKIE, value, max_age=preferences.YEAR_S)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _check_allowed(self, view: View, action: Action) -> None:
        if action.for_viewers or view.may_change:
            return
        audit_logger.warning("%s by %r: refused, because the user may not make changes", action.path, view.user.name)
        reason = gettext("only operators may do this")
        if self.services.read_only:
            reason = gettext("this dashboard is read-only")
        raise HTTPException(403, reason)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _shown(self, view: View, shown: Shown, **more: Any) -> Response:
        response = self._html(self._rendering.whole(view, shown, **more), shown.status, view.language)
        if view.new_secret is not None:
            self._set_cookie(view, response, forgery.COOKIE, view.new_secret)
        if flash.COOKIE in view.request.cookies:
            response.delete_cookie(flash.COOKIE, path=None)  # type: ignore[arg-type]  # the cookie was set without a path
        return response

    def _error(self, view: View, status: int, text: str, *, headers: Any = None) -> Response:
        title = pgettext("HTTP status", HTTPStatus(status).phrase)
        shown = view.page("error.html", title=title, status=status, text=text)
        response = self._shown(view, shown, is_live=False, up="../" * view.path.count("/"))
        response.headers.update(headers or {})
        return response

    def _away(self, view: View, error: BrokerError) -> Response:
        is_page = view.path in PAGES and view.request.method != "POST"
        shown = view.page(
            "away.html",
            title=gettext("Redis does not answer"),
            status=503,
            may_have_happened=view.request.method == "POST" and getattr(error, "may_have_happened", True),
        )
        response = self._shown(view, shown, is_live=is_page, is_away=is_page)
        response.headers["Retry-After"] = "2"
        return response

    def _html(self, text: str, status: int, language: str) -> Response:
        return Response(
            text.encode("utf-8", "replace"),
            status,
            headers={
                "Cache-Control": "no-store",
                "Vary": "Accept, Accept-Language, Cookie",
                "Content-Language": language,
            },
            media_type="text/html; charset=utf-8",
        )

    def _set_cookie(self, view: View, response: Response, name: str, value: str, *, max_age: int | None = None) -> None:
        """Set a cookie without a path. The browser then uses the path of the dashboard, which has one level."""
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            path=None,
            secure=view.request.scope.get("scheme") == "https",
            httponly=True,
            samesite="lax",
        )


def secured(response: Response) -> Response:
    """Add the security headers to a response."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response
