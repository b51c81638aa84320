"""Actions that ask for confirmation on a separate page.

Django's own machinery offers and calls them, for selected rows and for all that match. The confirmation page carries
the state in which each selected row was shown, so that an action can skip a row that has changed since.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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

SHOWN = 20
"""Most rows that a confirmation names."""
CONFIRMED_VAR, SEEN_VAR = "post", "seen"
ACTED_MAX = 1_000
"""Most rows that one request acts on one by one."""
LONGEST_S = 20.0
"""Seconds after which an action stops and reports how far it got, so that no server cuts off the request."""

Action = Callable[..., HttpResponse | None]
Text = str | Promise


class AdminForm(forms.Form):
    """A form whose fields have the widgets that a `ModelAdmin`, perhaps a theme's, gives to fields of a database."""

    columns: ClassVar[Mapping[str, "models.Field[Any, Any]"]] = {}
    """The fields, as fields of a database."""

    def __init__(self, modeladmin: Any, request: HttpRequest, data: Any = None) -> None:
        super().__init__(data)
        for name, column in self.columns.items():
            self.add(modeladmin, request, name, column)

    def add(self, modeladmin: Any, request: HttpRequest, name: str, column: "models.Field[Any, Any]") -> None:
        """Add a field."""
        self.fields[name] = form_field(modeladmin, request, name, column)


def form_field(modeladmin: Any, request: HttpRequest, name: str, column: "models.Field[Any, Any]") -> Any:
    """Return the form field that a `ModelAdmin` makes of a field of a database."""
    column.set_attributes_from_name(name)
    column.model = modeladmin.model
    # Leave out the validators of the column type: the form field has the same ones and would repeat their errors.
    given = column._validators  # type: ignore[attr-defined]  # the stubs omit it
    return modeladmin.formfield_for_dbfield(column, request, validators=given)


def as_code(field: Any, rows: int) -> None:
    """Make the field of a form one for JSON: several lines in a fixed-width font."""
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
    """Make a method of an admin an action that asks for confirmation.

    Args:
        description: Text in the list's choice of actions, such as `Run selected %(verbose_name_plural)s now`.
        button: Text of the button that confirms, and of the link on the page of one row.
        question: Question of the page, an `ngettext_lazy` over `%(count)d`.
        permissions: The user needs one of them: `run` means `has_run_permission`.
        form: Form with further questions. Its cleaned data are passed to the method as keyword arguments.
        is_destructive: True draws the button as that of a deletion.

    The method is called with the request, the rows and, as `seen`, the `mark` of each selected row when it was shown,
    by its key. It reports what was done.
    """

    def decorate(function: Action) -> Action:
        @admin.action(permissions=permissions, description=description)
        @functools.wraps(function)
        def action(modeladmin: Any, request: HttpRequest, rows: Any) -> HttpResponse | None:
            is_confirmed = request.method == "POST" and CONFIRMED_VAR in request.POST
            asked = None if form is None else form(modeladmin, request, request.POST if is_confirmed else None)
            if is_confirmed and (asked is None or asked.is_valid()):
                given = {} if asked is None else asked.cleaned_data
                return function(modeladmin, request, rows, seen=_seen_marks(request), **given)
            count, shown = rows.count(), rows[:SHOWN]
            is_picked = not is_across(request)
            context = {
                "title": button,
                "question": question % {"count": count},
                "note": getattr(rows, "note", ""),
                "shown": [(row, modeladmin.address("change", row.pk)) for row in shown],
                "more": max(0, count - len(shown)),
                "button": button,
                "form": asked,
                "media": modeladmin.media if asked is None else modeladmin.media + asked.media,
                "action": function.__name__,
                "is_picked": is_picked,
                "keys": [row.pk for row in (rows if is_picked else shown[:1])],
                "seen": request.POST.getlist(SEEN_VAR) or (_marks(rows) if is_picked else ()),
                "is_destructive": is_destructive,
                "back_url": modeladmin.way_back(request),
            }
            return modeladmin.render_page(request, modeladmin.confirmation_template, context)  # type: ignore[no-any-return]

        action.button = button  # type: ignore[attr-defined]  # read by the page of one row
        return action

    return decorate


def is_across(request: HttpRequest) -> bool:
    """Return whether all rows that match are selected. The value is read as by Django's own form of actions."""
    return forms.BooleanField(required=False).to_python(request.POST.get("select_across"))


def _marks(rows: Any) -> list[str]:
    return [f"{row.mark}:{row.pk}" for row in rows if hasattr(row, "mark")]


def _seen_marks(request: HttpRequest) -> dict[str, str]:
    """Return the mark of each selected row when it was shown, by its key."""
    marks = (each.partition(":") for each in request.POST.getlist(SEEN_VAR))
    return {key: mark for mark, _colon, key in marks}


def report_nothing_left(modeladmin: Any, request: HttpRequest) -> None:
    """Report that no row of an action exists any more."""
    modeladmin.message_user(request, _("Nothing was done: the selected rows do not exist any more."), messages.WARNING)


def report_more(modeladmin: Any, request: HttpRequest) -> None:
    """Report that one request could not act on all rows."""
    text = _("There may be more: one request does not act on all of them. Repeat the action to continue.")
    modeladmin.message_user(request, text, messages.WARNING)


def log(request: HttpRequest, row: Any, entry: Any, *, flag: int = CHANGE) -> None:
    """Record in the admin's log what the user did to a row: a text, or Django's list of changes."""
    LogEntry.objects.log_actions(
        user_id=str(request.user.pk), queryset=[row], action_flag=flag, change_message=entry, single_object=True
    )


class SkippedError(Exception):
    """An action does not apply to a row. Its text is the reason, for the user."""


class Deadline:
    """Time after which an action stops."""

    def __init__(self) -> None:
        self._end = SYSTEM_CLOCK.monotonic() + LONGEST_S
        self.has_begun = False

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return SYSTEM_CLOCK.monotonic() > self._end

    def progress(self, done: int, total: int) -> None:
        """Raise `TimeoutError` if the time is over and something is left. For calls that report their progress."""
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
    seen: Mapping[str, str] | None = None,
    flag: int = CHANGE,
) -> None:
    """Act on rows one by one and log each. Report the rows that were skipped, with the reasons.

    If Redis fails, the error is raised. A call that may have happened is logged as such.

    Args:
        modeladmin: The admin.
        request: Request of the user.
        rows: The rows.
        act: Acts on one row. Returns what to log and a number for the report. Raises `SkippedError` if the action does
            not apply.
        report: Message about the sum of these numbers, an `ngettext_lazy` over `%(count)d`.
        seen: Mark of each row when it was shown. A row with another mark now is skipped.
        flag: Flag of the log entries.
    """
    deadline = Deadline()
    found = rows[:ACTED_MAX]
    is_complete = len(found) == rows.count() and getattr(rows, "next_cursor", None) is None
    done: list[int] = []
    skipped: Counter[str] = Counter()
    if gone := len(getattr(rows, "keys", found)) - len(found):
        skipped[_("it does not exist any more")] = gone
    for place, row in enumerate(found):
        if place and deadline.is_over:
            is_complete = False
            break
        try:
            if seen is not None and seen.get(row.pk, row.mark) != row.mark:
                raise SkippedError(gettext_lazy("it has changed since the page was loaded"))
            with override(None):  # Django's log is in the language of the code as well
                entry, count = act(row, deadline)
            log(request, row, entry, flag=flag)
            done.append(count)
        except TimeoutError:
            log(request, row, f"Cut off after {LONGEST_S:.0f} s.")
            is_complete = False
            break
        except SkippedError as error:
            skipped[str(error)] += 1
        except BrokerError as error:
            if not isinstance(error, BrokerReplyError):  # else this row is damaged, and others may not be
                if error.may_have_happened or deadline.has_begun:
                    log(request, row, "Tried; Redis did not answer, so it is not known how far it got.")
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
