"""The object that each page and each action gets: the request, its user, and the services that answer it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.views import AsyncDashboard
from taskq_dashboard import flash, forgery, preferences
from taskq_dashboard.errors import unknown_choice
from taskq_dashboard.form import Form, parsed
from taskq_dashboard.languages import language_of
from taskq_dashboard.paging import Paging, paging
from taskq_dashboard.people import Login, Role, User
from taskq_fastapi.api.access import Redact
from taskq_fastapi.api.access import Shown as ShownOfTasks

T = TypeVar("T")

_OWN = re.compile(r"(?:\./)?(?P<rest>[a-z-]*(?:\?[!-~]*)?)")


def link(path: str, /, **query: object) -> str:
    """Return the relative address of a page or action. Query values that are None are left out."""
    text = urlencode([(name, str(value)) for name, value in query.items() if value is not None], errors="replace")
    return f"{path or './'}{'?' if text else ''}{text}"


def own_link(text: str) -> str | None:
    """Return a link from a request if it is a page of this dashboard, else None."""
    match = _OWN.fullmatch(text)
    return f"./{match['rest']}" if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The content of a page, which `rendering` turns into HTML.

    Attributes:
        template: Name of the template.
        title: Title of the page.
        context: Variables of the template besides `view`.
        status: The HTTP status.
    """

    template: str
    title: str
    context: dict[str, Any]
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Options and clients of one dashboard, which all requests share.

    Attributes:
        taskq: The queue application.
        inspector: Reads and changes queues and tasks.
        dashboard: Reads the records that pages show.
        login: Authenticates a request. None: no login.
        is_closed: Whether every request is refused.
        read_only: Whether all changes are refused.
        viewers_see_payloads: Whether viewers see payloads, results and tracebacks.
        redact: Changes payloads, results and tracebacks before they are shown.
        trusted_origins: Origins of the dashboard.
        title: Title of each page.
    """

    taskq: TaskQ
    inspector: AsyncInspector
    dashboard: AsyncDashboard
    login: Login | None
    is_closed: bool
    read_only: bool
    viewers_see_payloads: bool
    redact: Redact | None
    trusted_origins: Sequence[str]
    title: str


class View:
    """One request of a user who may see the dashboard.

    Args:
        services: Options and clients of the dashboard.
        request: The request.
        path: Path of the page or action, "" for the home page.
        user: The user.
        is_stream: Whether it renders an update of an open page.

    Attributes:
        query: The query of the address.
        preferences: The preferences of the user.
        language: The language of the page.
    """

    def __init__(self, services: Services, request: Request, path: str, user: User, *, is_stream: bool = False) -> None:
        self.services = services
        self.request = request
        self.path = path
        self.user = user
        self.is_stream = is_stream
        self.query: Form = parsed(request.scope["query_string"].decode("latin-1"))
        self.preferences = preferences.stored(request.cookies.get(preferences.COOKIE, ""))
        self.language = language_of(request)
        self.audited: dict[str, Any] = {}
        """Facts that an action adds to the audit log."""
        self.new_preferences: preferences.Preferences | None = None
        """Preferences that an action has changed."""
        self._secret = forgery.secret_of(request)
        self.new_secret = None if self._secret or is_stream else forgery.new_secret()
        """A new secret for a browser without a secret."""

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def dashboard(self) -> AsyncDashboard:
        """Reads the records that pages show."""
        return self.services.dashboard

    @property
    def inspector(self) -> AsyncInspector:
        """Reads and changes queues and tasks."""
        return self.services.inspector

    # --- permissions --------------------------------------------------------------------------------------------------

    @property
    def may_change(self) -> bool:
        """Whether the user may make changes."""
        return self.user.role is Role.OPERATOR and not self.services.read_only

    @property
    def sees_payloads(self) -> bool:
        """Whether the user may see payloads, results and tracebacks."""
        return self.user.role is Role.OPERATOR or self.services.viewers_see_payloads

    @property
    def shown(self) -> ShownOfTasks:
        """Hides and redacts parts of tasks that the user may not see, by `shown.octets(...)` and `shown.value(...)`."""
        return ShownOfTasks(payloads=self.sees_payloads, redact=self.services.redact)

    @cached_property
    def token(self) -> str:
        """The token in the forms of this user."""
        return forgery.token_for(self._secret or self.new_secret or "", self.user.name)

    def has_sent(self, form: Form) -> bool:
        """Return whether the form has the token of this user and browser."""
        return forgery.is_ours(self._secret, self.user.name, form.get(forgery.FIELD))

    # --- rendering ----------------------------------------------------------------------------------------------------

    def page(self, template: str, *, title: str, status: int = 200, **context: Any) -> Shown:
        """Return the content of a page.

        Args:
            template: Name of its template, which extends `base.html`.
            title: Its title.
            status: The HTTP status.
            context: Variables of the template. It also has `view`, `ui` and `link`.
        """
        return Shown(template=template, title=title, context=context, status=status)

    def in_order(self, rows: Iterable[T], sorts: Mapping[str, Callable[[T], Any]], default: str) -> tuple[str, list[T]]:
        """Return the sort order that the address selects, such as `-size`, and the rows in this order.

        Args:
            rows: Rows of a table.
            sorts: Sort keys by name. The first key also orders rows that are equal by the selected one.
            default: Sort order if the address selects none.

        Raises:
            BadRequestError: The address has an unknown sort.
        """
        sort = self.query.get("sort", default)
        name = sort.removeprefix("-")
        if name not in sorts:
            raise unknown_choice("sort", sorts, sort)
        by_name = sorted(rows, key=next(iter(sorts.values())))
        return sort, sorted(by_name, key=sorts[name], reverse=sort.startswith("-"))

    def paging(self, total: int) -> Paging:
        """Return the page of a list that the address selects. `ui.pages(view, paging)` links to the other pages."""
        return paging(self.query, total, rows=self.preferences.rows)

    @property
    def here(self) -> str:
        """The link to this page, with its query."""
        return self.with_query()

    def with_query(self, **changes: object) -> str:
        """Return the link to this page with changed query values. None removes a value."""
        unchanged = [(name, value) for name, value in self.query.fields if name not in changes]
        added = [(name, str(value)) for name, value in changes.items() if value is not None]
        text = urlencode(unchanged + added, errors="replace")
        return f"{self.path or './'}{'?' if text else ''}{text}"

    @property
    def message(self) -> tuple[str, str] | None:
        """Level and text of the message of the previous action."""
        return None if self.is_stream else flash.unpacked(self.request.cookies.get(flash.COOKIE, ""))
