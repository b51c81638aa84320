"""Register the pages and actions of the dashboard: the functions in `pages/` with `@page` and `@action`.

Addresses have one level, without a slash, and the query string contains the object: `queue?name=mail`. So all links are
relative, the dashboard works under any path and behind any proxy, and an id or a name can be any text.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from taskq_dashboard.form import Form
from taskq_dashboard.view import Shown, View

ASK = "ask"
"""Name of the field of a form that only requests the confirmation page. It is sent by POST, because the selected tasks
do not fit in a URL."""


Show = Callable[[View], Awaitable[Shown | Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of the dashboard.

    Attributes:
        path: Address of the page, for example `queues`; "" is the home page.
        show: Reads the data and returns `view.page(...)`. It makes no changes, and runs again for each update.
        label: English label in the navigation. None: the page is not in the navigation.
        is_live: Whether it is updated while it is open.
        update_s: Minimum seconds between two updates by one stream. Users may choose a longer interval.
        needs_operator: Whether viewers are refused.
    """

    path: str
    show: Show
    label: str | None = None
    is_live: bool = True
    update_s: float = 0.0
    needs_operator: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A confirmation that is shown before an action.

    Attributes:
        text: The question.
        button: Label of the button.
        is_destructive: Whether the button is a warning.
        template: A template with more fields of the form.
        context: Variables of this template.
    """

    text: str
    button: str
    is_destructive: bool = False
    template: str | None = None
    context: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The outcome of an action.

    Attributes:
        text: The message on the next page.
        back: Link to the next page. None: the page on which the user started the action.
        level: `success`, `warning` or `error`.
    """

    text: str
    back: str | None = None
    level: str = "success"


Ask = Callable[[View, Form], Awaitable[Question]]
Perform = Callable[[View, Form], Awaitable[Done | Shown]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A change, made by a POST from a form of the dashboard and written to the logger `taskq.audit`.

    A GET of the address shows the question, in a dialog if JavaScript is on. A POST of a form with the field `ASK` does
    the same, for forms that are too long for a URL. Without a question, GET is refused.

    Attributes:
        path: Address of the action, for example `queue-delete`.
        perform: Makes the change. Returns the outcome, or the form again if its values are not valid. The next page
            shows an error of taskq.
        ask: Returns the question. None: no question.
        audited: Names of the form fields that are written to the audit log. They must not contain payloads.
        for_viewers: Whether viewers may run the action, even on a read-only dashboard, because it changes only their
            own view.
        body_max: Maximum size of the form in bytes.
    """

    path: str
    perform: Perform
    ask: Ask | None = None
    audited: Sequence[str] = ()
    for_viewers: bool = False
    body_max: int = 1024 * 1024


PAGES: dict[str, Page] = {}
"""Registered pages by path, in the order of the navigation."""
ACTIONS: dict[str, Action] = {}
"""Registered actions by path."""


def page(path: str, **options: Any) -> Callable[[Show], Show]:
    """Register a function as the page of an address. The options are the attributes of `Page`."""

    def register(show: Show) -> Show:
        PAGES[path] = Page(path=path, show=show, **options)
        return show

    return register


def action(path: str, **options: Any) -> Callable[[Perform], Perform]:
    """Register a function as the action of an address. The options are the attributes of `Action`."""

    def register(perform: Perform) -> Perform:
        ACTIONS[path] = Action(path=path, perform=perform, **options)
        return perform

    return register
