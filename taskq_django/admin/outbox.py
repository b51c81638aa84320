"""The admin pages of tasks that wait in the outbox.

The rows are in a database table, so the pages are Django's own. The mixin works with any `ModelAdmin`:

    class MyOutboxTaskAdmin(OutboxTaskAdminMixin, unfold.admin.ModelAdmin): ...
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db import DatabaseError, router
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from taskq_core import ConfigurationError
from taskq_core.settings import EnqueueMode
from taskq_django.admin.base import BaseAdmin, FrameMixin
from taskq_django.admin.formats import number, span
from taskq_django.app import taskq
from taskq_django.models import OutboxTask
from taskq_django.outbox import DatabaseTable, outbox_aliases

if TYPE_CHECKING:
    BaseChangeList = ChangeList
else:
    BaseChangeList = object


class OutboxList(BaseChangeList):
    """A change list that shows the number of waiting rows and the age of the oldest, for each database."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page."""
        super().get_results(request)
        listed = router.db_for_write(OutboxTask)
        notes = [_figures(listed), *(_figures_of_other(alias) for alias in outbox_aliases() if alias != listed)]
        try:
            is_used = taskq.settings.enqueue is EnqueueMode.OUTBOX
        except ConfigurationError:
            is_used = True  # a system check reports the invalid settings
        if not is_used:
            notes.append(_("Rows are not sent, because ENQUEUE in the setting TASKQ is not “outbox”."))
        self.search_help_text = " ".join(note for note in notes if note)


def _figures_of_other(alias: str) -> str:
    """Return the figures of the outbox in a database that the list does not show, "" if no rows wait in it."""
    try:
        text = _figures(alias) if DatabaseTable(alias).figures().waiting else ""
    except DatabaseError as error:
        text = str(error)
    return _("Database %(name)s: %(text)s") % {"name": alias, "text": text} if text else ""


def _figures(alias: str) -> str:
    figures = DatabaseTable(alias).figures()
    if figures.oldest_s is None:
        return _("No tasks are waiting.")
    text = ngettext(
        "%(count)s task has been waiting for %(span)s.",
        "%(count)s tasks are waiting, the oldest for %(span)s.",
        figures.waiting,
    )
    return text % {"count": number(figures.waiting), "span": span(timedelta(seconds=figures.oldest_s))}


class OutboxTaskAdminMixin(FrameMixin):
    """The pages of the outbox: how long each task has been waiting, and whether a sender has claimed it.

    Arguments are not shown. Time spans are computed with the clock of the database, as in the relay.
    """

    list_display = ("name", "task_id", "queue", "waits", "claimed_for", "size")
    list_filter = ("queue", "name")
    search_fields = ("task_id", "name", "queue")
    fields = list_display
    readonly_fields = list_display
    ordering = ("id",)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows with their time spans, from the database to which new rows are written."""
        waits = ExpressionWrapper(Now() - F("created_at"), output_field=DurationField())
        left = ExpressionWrapper(F("claimed_until") - Now(), output_field=DurationField())
        rows = super().get_queryset(request).using(router.db_for_write(OutboxTask))
        return rows.annotate(waits_for=waits, claim_left=left)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the change list class of the base class, extended by the figures."""
        return type("OutboxList", (OutboxList, super().get_changelist(request, **kwargs)), {})

    @admin.display(description=gettext_lazy("waiting time"), ordering="-created_at")
    def waits(self, obj: Any) -> str:
        """Return the time since the row was written."""
        return span(max(timedelta(), obj.waits_for))

    @admin.display(description=gettext_lazy("claimed for"), ordering="claimed_until", empty_value="-")
    def claimed_for(self, obj: Any) -> str:
        """Return the remaining time of a sender's claim, or of the delay after the queue has refused the task."""
        return "" if obj.claim_left is None or obj.claim_left <= timedelta() else span(obj.claim_left)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Return whether an address may filter by a field. Messages and unique keys would reveal arguments."""
        field = lookup.partition("__")[0]
        return field not in ("message", "unique_key", "unique_rule", "claim") and super().lookup_allowed(
            lookup, value, request
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: rows are added only by enqueueing."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: rows cannot be changed."""
        return False


@admin.register(OutboxTask)
class OutboxTaskAdmin(OutboxTaskAdminMixin, BaseAdmin):
    """Tasks of the outbox in Django's own admin."""
