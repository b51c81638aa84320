"""Actions that ask for confirmation on a separate page.

Django lists and calls them like other actions, for selected rows and for all matching rows. The confirmation page
contains the state of each selected row at the time it was shown, so that an action can skip rows that have changed.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, override

from taskq_core import BrokerError, TaskQError
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.errors import BrokerReplyError
from taskq_django.admin.rows import MORE, is_across

SHOWN = 20
"""Maximum number of rows that a confirmation page lists."""
CONFIRMED_VAR, MARKS_VAR = "post", "marks"
ACTED_MAX = 1_000
"""Maximum number of rows that an action on single rows handles in one request."""
LONGEST_S = 20.0
"""Seconds after which an action stops and reports its progress, before a web server ends the request."""

Action = Callable[..., HttpResponse | None]
Text = str | Promise


class AdminForm(forms.Form):
    """A form whose fields have the widgets that a `ModelAdmin` (maybe of a theme) uses for model fields."""

    columns: ClassVar[Mapping[str, "models.Field[Any, Any]"]] = {}
    """The model field of each form field."""

    def __init__(self, modeladmin: Any, request: HttpRequest, data: Any = None, rows: Any = ()) -> None:
        super().__init__(data)
        for name, column in self.columns.items():
            self.add(modeladmin, request, name, column)

    def add(self, modeladmin: Any, request: HttpRequest, name: str, column: "models.Field[Any, Any]") -> None:
        """Add the form field of a model field."""
        self.fields[name] = form_field(modeladmin, request, name, column)


def form_field(modeladmin: Any, request: HttpRequest, name: str, column: "models.Field[Any, Any]") -> Any:
    """Return the form field that a `ModelAdmin` creates for a model field."""
    column.set_attributes_from_name(name)
    column.model = modeladmin.model
    # Pass only the explicit validators of the model field. Its standard validators would repeat the form field's
    # errors.
    given = column._validators  # type: ignore[attr-defined]  # the stubs omit it
    return modeladmin.formfield_for_dbfield(column, request, validators=given)


def as_code(field: Any, rows: int) -> None:
    """Change the widget of a form field to several lines in a fixed-width font, for JSON."""
    classes = f"{field.widget.attrs.get('class', '')} taskq-json".strip()
    field.widget.attrs.update({"rows": rows, "class": classes, "spellcheck": "false"})


def confirmed_action(
    *,
    description: Any,
    button: Text,
    question: Any,
    permissions: Sequence[str],
    form: type[AdminForm] | None = None,
    is_destructive: bool = False,
) -> Callable[[Action], Action]:
    """Turn a method of an admin into an action that asks for confirmation.

    Args:
        description: Text in the list's choice of actions, such as `Run selected %(verbose_name_plural)s now`.
        button: Text of the confirming button, and of the button on the page of one row.
        question: Question on the confirmation page: an `ngettext_lazy` with `%(count)d`, or a function of this number
            and of the rows that the page lists.
        permissions: The user needs one of them: `run` means `has_run_permission`.
        form: Form with further input. Its cleaned data are passed to the method as keyword arguments.
        is_destructive: True draws the button like that of a deletion.

    The method gets the request, the rows and `shown_marks`: the `mark` of each selected row when it was shown, by key.
    It reports the result to the user.
    """

    def decorate(function: Action) -> Action:
        @admin.action(permissions=permissions, description=description)
        @functools.wraps(function)
        def action(modeladmin: Any, request: HttpRequest, rows: Any) -> HttpResponse | None:
            is_confirmed = request.method == "POST" and CONFIRMED_VAR in request.POST
            posted = request.POST if is_confirmed else None
            confirm_form = None if form is None else form(modeladmin, request, posted, rows)
            if is_confirmed and (confirm_form is None or confirm_form.is_valid()):
                given = {} if confirm_form is None else confirm_form.cleaned_data
                return function(modeladmin, request, rows, shown_marks=_shown_marks(request), **given)
            count, shown = rows.count(), rows[:SHOWN]
            is_picked = not is_across(request)
            context = {
                "title": button,
                "question": question(count, shown) if callable(question) else question % {"count": count},
                "note": getattr(rows, "note", ""),
                "shown": [
                    (
                        modeladmin.row_label(row),
                        modeladmin.address("change", row.pk),
                        modeladmin.row_details(row, count),
                    )
                    for row in shown
                ],
                "more": max(0, count - len(shown)),
                "button": button,
                "form": confirm_form,
                "media": modeladmin.media if confirm_form is None else modeladmin.media + confirm_form.media,
                "action": function.__name__,
                "is_picked": is_picked,
                "keys": [row.pk for row in (rows if is_picked else shown[:1])],
                "marks": request.POST.getlist(MARKS_VAR) or (_marks(rows) if is_picked else ()),
                "is_destructive": is_destructive,
                "back_url": modeladmin.back_url(request),
            }
            return modeladmin.render_page(request, modeladmin.confirmation_template, context)  # type: ignore[no-any-return]

        action.button = button  # type: ignore[attr-defined]  # the page of one row reads this attribute
        return action

    return decorate


def row_action(*, report: Any, flag: int = CHANGE, **confirmation: Any) -> Callable[[Callable[..., Any]], Action]:
    """Turn a method that changes one row into an action on the selected rows that asks for confirmation.

    Args:
        report: As in `act_on_each`.
        flag: Flag of the log entries.
        confirmation: As in `confirmed_action`.

    The method is `act` of `act_on_each`. The cleaned data of the form are passed to it as keyword arguments.
    """

    def decorate(function: Callable[..., Any]) -> Action:
        @confirmed_action(**confirmation)
        @functools.wraps(function)
        def act_on_rows(
            modeladmin: Any, request: HttpRequest, rows: Any, *, shown_marks: Mapping[str, str], **given: Any
        ) -> None:
            act = functools.partial(function, modeladmin, **given)
            act_on_each(modeladmin, request, rows, act, report, shown_marks=shown_marks, flag=flag)

        return act_on_rows

    return decorate


def _marks(rows: Any) -> list[str]:
    return [f"{row.mark}:{row.pk}" for row in rows if hasattr(row, "mark")]


def _shown_marks(request: HttpRequest) -> dict[str, str]:
    """Return the state (`Task.mark`) that each selected row had when the page was loaded, by key."""
    marks = (each.partition(":") for each in request.POST.getlist(MARKS_VAR))
    return {key: mark for mark, _colon, key in marks}


def read_mark(mark: str) -> tuple[str, str]:
    """Return the generation in a row's mark, "" without one, and the rest of the mark."""
    generation, _, rest = mark[1:].partition(" ") if mark.startswith("@") else ("", "", mark)
    return generation, rest


def _has_changed(shown: str, now: str) -> bool:
    """Return whether the mark of a row has changed. A list may not have shown the generation of a task."""
    (shown_generation, shown_rest), (generation, rest) = read_mark(shown), read_mark(now)
    return shown_rest != rest or shown_generation not in ("", generation)


def report_nothing_left(modeladmin: Any, request: HttpRequest) -> None:
    """Report that all selected rows have been deleted."""
    modeladmin.message_user(request, _("Nothing was done: the selected rows do not exist any more."), messages.WARNING)


def report_more(modeladmin: Any, request: HttpRequest) -> None:
    """Report that one request could not handle all rows."""
    modeladmin.message_user(request, MORE, messages.WARNING)


def log(request: HttpRequest, row: Any, entry: Any, *, flag: int = CHANGE) -> None:
    """Record the action of a user on a row in the admin's log: a text, or Django's list of changes."""
    LogEntry.objects.log_actions(
        user_id=str(request.user.pk), queryset=[row], action_flag=flag, change_message=entry, single_object=True
    )


class SkippedError(Exception):
    """An action does not apply to a row. Its text is the reason, which is shown to the user."""


class Deadline:
    """The time at which an action on many rows stops, `LONGEST_S` after its start."""

    def __init__(self) -> None:
        self._end = SYSTEM_CLOCK.monotonic() + LONGEST_S
        self.has_begun = False

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return SYSTEM_CLOCK.monotonic() > self._end

    def progress(self, done: int, total: int) -> None:
        """Raise `TimeoutError` if the deadline has passed before the end of the work. Used as a progress callback."""
        self.has_begun = True
        if done < total and self.is_over:
            raise TimeoutError


def act_on_each(
    modeladmin: Any,
    request: HttpRequest,
    rows: Any,
    act: Callable[[Any, Deadline], tuple[Any, int]],
    report: Any,
    *,
    shown_marks: Mapping[str, str] = MappingProxyType({}),
    flag: int = CHANGE,
) -> None:
    """Perform an action on rows one by one and log each. Report the skipped rows with the reasons.

    If Redis fails, the error is raised. The action whose reply is missing is logged too, because Redis may have carried
    it out.

    Args:
        modeladmin: The admin.
        request: Request of the user.
        rows: The rows.
        act: Performs the action on one row. Returns the text of the log entry and a number for the report. Raises
            `SkippedError` if the action does not apply.
        report: Message about the sum of these numbers, an `ngettext_lazy` with `%(count)d`.
        shown_marks: Mark of each row when it was shown. A row with another mark now is skipped.
        flag: Flag of the log entries.
    """
    deadline = Deadline()
    found = rows[:ACTED_MAX]
    is_complete = len(found) == rows.count() and getattr(rows, "finds_all", True)
    done: list[int] = []
    skipped: Counter[str] = Counter()
    if missing := len(getattr(rows, "keys", found)) - len(found):
        skipped[_("deleted in the meantime")] = missing
    for place, row in enumerate(found):
        if place and deadline.is_over:
            is_complete = False
            break
        try:
            if row.pk in shown_marks and _has_changed(shown_marks[row.pk], row.mark):
                raise SkippedError(gettext_lazy("changed since the page was loaded"))
            with override(None):  # log entries are not translated, as in Django's own
                entry, count = act(row, deadline)
            log(request, row, entry, flag=flag)
            done.append(count)
        except TimeoutError:
            log(request, row, f"Stopped after {LONGEST_S:.0f} s. It may be incomplete.")
            is_complete = False
            break
        except SkippedError as error:
            skipped[str(error)] += 1
        except BrokerError as error:
            if not isinstance(error, BrokerReplyError):  # a BrokerReplyError concerns only this row
                if error.may_have_happened or deadline.has_begun:
                    log(request, row, "Redis did not answer. The action may have been carried out in part.")
                raise
            skipped[str(error)] += 1
        except TaskQError as error:
            skipped[str(error)] += 1
    if done:
        modeladmin.message_user(request, report % {"count": sum(done)}, messages.SUCCESS)
    for reason, count in skipped.items():
        text = ngettext("%(count)d was skipped: %(reason)s.", "%(count)d were skipped: %(reason)s.", count)
        modeladmin.message_user(request, text % {"count": count, "reason": reason.rstrip(".")}, messages.WARNING)
    if not is_complete:
        report_more(modeladmin, request)
    elif not found and not skipped:
        report_nothing_left(modeladmin, request)
