"""Pages and actions of the dashboard. The functions in `pages/` register themselves with `@page` and `@action`.

All addresses are on one level, without a slash, and the query names the object: `queue?name=mail`. So all links are
relative, the dashboard works under any path and behind any proxy, and an id or a name can be any text.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from taskq_fastapi.dashboard.form import Form
from taskq_fastapi.dashboard.view import Shown, View

ASK = "ask"
"""Name of the field of a form that only asks for the question, because its values are too long for an address."""


Show = Callable[[View], Awaitable[Shown | Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page.

    Attributes:
        path: Its address, for example `queues`; "" is the home page.
        show: Reads the data and returns `view.page(...)`. It changes nothing, and runs again for each update.
        label: Its English label in the navigation. None: it is not in the navigation.
        is_live: Whether it is updated while it is open.
        update_s: Minimum seconds between two updates. Users may choose a longer interval.
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
        template: A template with further fields of the form.
        context: Variables of that template.
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
        back: A link of the view to the next page. None: the page that the action was started on.
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

    A GET of its address shows the question, in a dialog if there is JavaScript. So does a form with the field `ASK`, if
    the form is too long for an address. Without a question, GET is refused.

    Attributes:
        path: Its address, for example `queue-delete`.
        perform: Makes the change. Returns the outcome, or the form again if its values are not valid. An error of
            taskq is shown on the next page.
        ask: Returns the question. None: no question.
        audited: Names of the fields of the form that are logged. Never those of payloads.
        for_viewers: Whether viewers may do it, even on a read-only dashboard, because it changes only their own view.
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
