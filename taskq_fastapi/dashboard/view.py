"""What a page or an action is given: who looks, what they ask for, and what it takes to answer."""

import re
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.views import AsyncDashboard
from taskq_fastapi.api.access import Redact
from taskq_fastapi.api.access import Shown as ShownOfTasks
from taskq_fastapi.dashboard import flash, forgery, preferences
from taskq_fastapi.dashboard.cancelling import Cancelling
from taskq_fastapi.dashboard.form import Form, parsed
from taskq_fastapi.dashboard.languages import language_of
from taskq_fastapi.dashboard.live import SharedReads
from taskq_fastapi.dashboard.paging import Paging, paging
from taskq_fastapi.dashboard.people import Role, User
from taskq_fastapi.dashboard.prometheus import Prometheus

T = TypeVar("T")

_OWN = re.compile(r"(?:\./)?(?P<rest>[a-z-]*(?:\?[!-~]*)?)")


def link(path: str, /, **query: object) -> str:
    """Return the relative address of a page or action; what is None is left out.

    Args:
        path: Its path, "" for the home page.
        query: What is meant, by name.
    """
    text = urlencode([(name, str(value)) for name, value in query.items() if value is not None], errors="replace")
    return f"{path or './'}{'?' if text else ''}{text}"


def own_link(text: str) -> str | None:
    """Return a link that came in from outside if it leads to a page of this dashboard, else None."""
    match = _OWN.fullmatch(text)
    return f"./{match['rest']}" if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a page shows.

    Attributes:
        template: Name of its template.
        title: Its title, as text.
        context: What the template is given besides `view`.
        status: The HTTP status.
    """

    template: str
    title: str
    context: dict[str, Any]
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What all requests to one dashboard share.

    Attributes:
        taskq: The queue application.
        inspector: Reads and changes queues and tasks.
        dashboard: Reads what pages show.
        read_only: Whether all changes are refused.
        viewers_see_payloads: Whether viewers see payloads, results and tracebacks.
        redact: Changes payloads, results and tracebacks before they are shown.
        prometheus: Source of the charts. None: the samples of workers.
        reads: Results that requests share.
        cancelling: Tasks whose cancellation was requested here.
    """

    taskq: TaskQ
    inspector: AsyncInspector
    dashboard: AsyncDashboard
    read_only: bool
    viewers_see_payloads: bool
    redact: Redact | None
    prometheus: Prometheus | None
    reads: SharedReads = field(default_factory=SharedReads)
    cancelling: Cancelling = field(default_factory=Cancelling)


class View:
    """One request of somebody who may look.

    Args:
        services: What all requests to the dashboard share.
        request: The request.
        path: Which page or action it is for, "" for the home page.
        user: Who looks.
        is_stream: Whether a page is shown again to those who look at it already.

    Attributes:
        query: The query of the address.
        preferences: How they want the pages.
        language: In which language.
    """

    def __init__(self, services: Services, request: Request, path: str, user: User, *, is_stream: bool = False) -> None:
        self.services = services
        self.request = request
        self.path = path
        self.user = user
        self.is_stream = is_stream
        self.query: Form = parsed(request.scope["query_string"].decode("latin-1"))
        self.preferences = preferences.kept(request.cookies.get(preferences.COOKIE, ""))
        self.language = language_of(request)
        self.audited: dict[str, Any] = {}
        """What an action adds to what is noted of it."""
        self.new_preferences: preferences.Preferences | None = None
        """What an action has them choose."""
        self._secret = forgery.secret_of(request)
        self.new_secret = None if self._secret or is_stream else forgery.new_secret()
        """A secret that the browser has to be given."""

    # --- what is read -------------------------------------------------------------------------------------------------

    @property
    def dashboard(self) -> AsyncDashboard:
        """What an operator looks at."""
        return self.services.dashboard

    @property
    def inspector(self) -> AsyncInspector:
        """Looks at the store and changes it."""
        return self.services.inspector

    async def shared(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """Return what is read from Redis, once for all who keep looking at the same.

        Args:
            key: Stands for what is read, with all it depends on; it must not depend on who looks.
            read: Reads it.
        """
        age_s = 0.9 * self.preferences.interval if self.is_stream else 0.0
        return await self.services.reads.get(key, read, age_s=age_s)

    # --- who may what -------------------------------------------------------------------------------------------------

    @property
    def may_change(self) -> bool:
        """Whether they may change something."""
        return self.user.role is Role.OPERATOR and not self.services.read_only

    @property
    def sees_payloads(self) -> bool:
        """Whether they may see payloads, results and tracebacks."""
        return self.user.role is Role.OPERATOR or self.services.viewers_see_payloads

    @property
    def shown(self) -> ShownOfTasks:
        """What of a task they are shown: `shown.octets(...)` and `shown.value(...)` hide and redact."""
        return ShownOfTasks(payloads=self.sees_payloads, redact=self.services.redact)

    @cached_property
    def token(self) -> str:
        """What the forms hold that are shown to them."""
        return forgery.token_for(self._secret or self.new_secret or "", self.user.name)

    def has_sent(self, form: Form) -> bool:
        """Return whether a form was shown to them in this browser."""
        return forgery.is_ours(self._secret, self.user.name, form.get(forgery.FIELD))

    # --- what is shown ------------------------------------------------------------------------------------------------

    def page(self, template: str, *, title: str, status: int = 200, **context: Any) -> Shown:
        """Return what a page shows.

        Args:
            template: Name of its template, which extends `base.html`.
            title: Its title, as text.
            status: The HTTP status.
            context: What the template is given; it also has `view`, `ui` and `link`.
        """
        return Shown(template=template, title=title, context=context, status=status)

    def paging(self, total: int) -> Paging:
        """Return which part of a list the address asks for; `ui.pages(view, paging)` links to the others."""
        return paging(self.query, total, rows=self.preferences.rows)

    @property
    def here(self) -> str:
        """The link to this page, with its query."""
        return self.with_query()

    def with_query(self, **changes: object) -> str:
        """Return the link to this page with some of its query changed; None takes a part out."""
        kept = [(name, value) for name, value in self.query.fields if name not in changes]
        added = [(name, str(value)) for name, value in changes.items() if value is not None]
        text = urlencode(kept + added, errors="replace")
        return f"{self.path or './'}{'?' if text else ''}{text}"

    @property
    def told(self) -> tuple[str, str] | None:
        """What an action said, for this page to show: a level and a text."""
        return None if self.is_stream else flash.unpacked(self.request.cookies.get(flash.COOKIE, ""))
