"""What pages and actions are. `pages/` holds them, and `pages.PAGES` and `pages.ACTIONS` name each once.

All addresses lie side by side, without a slash, and what is meant stands in the query: `queue?name=mail`. So all links
are relative, and the dashboard works under any path and behind any proxy without being told; and an id or a name can
be any text, whatever a proxy makes of `%2F` and dots.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from starlette.responses import Response

from taskq_fastapi.dashboard.form import Form
from taskq_fastapi.dashboard.view import Shown, View

ASK = "ask"
"""Name of a field of a form whose action only asks: what is meant may be too much for an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page: what it is at, and what shows it.

    Attributes:
        path: Its address, for example `queues`; "" is the home page.
        show: Reads what it shows and returns `view.page(...)`. It changes nothing, and is called again and again for
            those who look at the page.
        label: What the navigation calls it in English, None for a page that does not stand there.
        is_live: Whether it is kept up to date while somebody looks.
        needs_operator: Whether viewers are refused.
        is_costly: Whether it reads many tasks, so that an address may ask for it only so often.
    """

    path: str
    show: Callable[[View], Awaitable[Shown | Response]]
    label: str | None = None
    is_live: bool = True
    needs_operator: bool = False
    is_costly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked before something is done.

    Attributes:
        text: The question, whole.
        button: What the button says.
        is_destructive: Whether the button warns.
        template: A template with further fields of the form, None for none.
        context: What that template is given.
    """

    text: str
    button: str
    is_destructive: bool = False
    template: str | None = None
    context: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of an action.

    Attributes:
        text: What is said on the next page.
        back: A link of the view to that page; None for the one that the action was asked for on.
        level: How it is shown: `success`, `warning` or `error`.
    """

    text: str
    back: str | None = None
    level: str = "success"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something that is done by a POST from a form of the dashboard, and noted in the logger `taskq.audit`.

    A GET of its address asks first, in a dialog where there is JavaScript; without a question there is no GET. So does
    a form with the field `ASK`, for what is too long for an address.

    Attributes:
        path: Its address, for example `queue-delete`.
        perform: Does it, and returns what is said, or what is shown: a form again that is not right yet. An error of
            taskq that it raises is told on the page that one comes back to.
        ask: What is asked before, None if nothing is. It may raise as `perform`.
        audited: Names of the fields of the form that are noted. Never those of payloads.
        for_viewers: Whether viewers may, also where everything is read only: what changes nothing but their own view.
        body_max: Most bytes of the form.
        is_costly: Whether it reads or changes many tasks, so that an address may ask for it only so often.
    """

    path: str
    perform: Callable[[View, Form], Awaitable[Done | Shown]]
    ask: Callable[[View, Form], Awaitable[Question]] | None = None
    audited: Sequence[str] = ()
    for_viewers: bool = False
    body_max: int = 1024 * 1024
    is_costly: bool = False
