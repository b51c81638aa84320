"""Actions that are confirmed on a page of their own before anything is done.

Django's own machinery offers and calls them, on selected rows and on all that match. The confirmation carries "all that
match" along instead of a thousand keys, and for selected rows how each stood when it was shown, so that an action can
leave alone what somebody else has changed meanwhile.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from taskq_django.admin.rows import PickedRows, Rows
from taskq_django.admin.theming import themed

SHOWN = 20
"""Most rows that a confirmation names one by one."""
CONFIRMED_VAR = "post"
SEEN_VAR = "seen"
SEEN_BYTES = 1024 * 1024

Action = Callable[..., HttpResponse | None]
Text = str | Promise


def confirmed_action(
    *,
    description: Any,
    button: Text,
    question: Any,
    permissions: Sequence[str],
    form: type[forms.Form] | str | None = None,
    is_destructive: bool = False,
) -> Callable[[Action], Action]:
    """Make a method of an admin an action that asks before it acts.

    Args:
        description: What the list offers, for example `Run selected %(verbose_name_plural)s now`.
        button: What the button says that does it, and the link on the page of one row.
        question: What is asked, an `ngettext_lazy` over `%(count)d`.
        permissions: The user needs one of them: `run` stands for `has_run_permission`.
        form: What else is asked: a form, or the name of a method of the admin that makes one of the request and what
            was posted (None: nothing yet). What it cleans is passed to the method as keyword arguments.
        is_destructive: True draws the button as that of a deletion.

    The method is called with the request, the rows and, as `seen`, how each selected row stood when it was shown: the
    `mark` of its key, or nothing for a row without one. It tells the user what was done.
    """

    def decorate(function: Action) -> Action:
        @admin.action(permissions=permissions, description=description)
        @functools.wraps(function)
        def action(modeladmin: Any, request: HttpRequest, rows: Rows) -> HttpResponse | None:
            is_confirmed = request.method == "POST" and CONFIRMED_VAR in request.POST
            data = request.POST if is_confirmed else None
            asked: forms.Form | None = None
            if isinstance(form, str):
                asked = getattr(modeladmin, form)(request, data)
            elif form is not None:
                asked = form(data)
            if asked is not None:
                themed(modeladmin, request, asked)
            if not is_confirmed or (asked is not None and not asked.is_valid()):
                page = Confirmation(function.__name__, button, question, is_destructive)
                return page.draw(modeladmin, request, rows, asked)
            given = {} if asked is None else asked.cleaned_data
            return function(modeladmin, request, rows, seen=seen_marks(request), **given)

        action.button = button  # type: ignore[attr-defined]  # read by the page of one row
        return action

    return decorate


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The page that asks before an action."""

    name: str
    button: Text
    question: Any
    is_destructive: bool

    def draw(
        self, modeladmin: Any, request: HttpRequest, rows: "Rows | QuerySet[Any]", form: forms.Form | None
    ) -> HttpResponse:
        """Draw it."""
        count = rows.count()
        shown = rows[:SHOWN]
        is_picked = isinstance(rows, PickedRows)
        if isinstance(rows, QuerySet):  # of a model with a table
            is_picked = request.POST.get("select_across") != "1"
        marks: Mapping[str, str] = {row.pk: row.mark for row in rows if hasattr(row, "mark")} if is_picked else {}
        if is_picked and SEEN_VAR in request.POST:
            marks = seen_marks(request)  # asked again, because of the form: what the user has seen stays what it was
        context = {
            "title": self.button,
            "question": self.question % {"count": count},
            "note": getattr(rows, "note", ""),
            "shown": [(row, modeladmin.page_of(request, row)) for row in shown],
            "more": max(0, count - len(shown)),
            "button": self.button,
            "form": form,
            "media": modeladmin.media + form.media if form is not None else modeladmin.media,
            "action": self.name,
            "hidden": [
                ("action", self.name),
                (CONFIRMED_VAR, "yes"),
                ("select_across", "0" if is_picked else "1"),
                (SEEN_VAR, json.dumps(marks)),
                *((ACTION_CHECKBOX_NAME, row.pk) for row in (rows if is_picked else shown[:1])),
            ],
            "is_destructive": self.is_destructive,
            "is_empty": count == 0,
            "back_url": modeladmin.way_back(request),
        }
        return modeladmin.render_page(request, modeladmin.confirmation_template, context)  # type: ignore[no-any-return]


def seen_marks(request: HttpRequest) -> Mapping[str, str]:
    """Return how each selected row stood when it was shown; nothing for what is no answer of ours."""
    text = request.POST.get(SEEN_VAR, "")
    if len(text) > SEEN_BYTES:
        return {}
    try:
        marks = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(marks, dict):
        return {}
    return {key: mark for key, mark in marks.items() if isinstance(mark, str)}


def nothing_left() -> str:
    """What is said when all rows of an action are gone."""
    return _("Nothing was done: what was selected is not there (any more).")
