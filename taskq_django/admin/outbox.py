"""Tasks that wait in the outbox.

The rows are in a table, so the pages are Django's own. The mixin can be put over another `ModelAdmin`:

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
from taskq_django.admin.base import BaseAdmin
from taskq_django.admin.formats import number, span
from taskq_django.admin.live import LiveMixin
from taskq_django.app import taskq
from taskq_django.models import OutboxTask
from taskq_django.outbox import DatabaseTable, outbox_aliases

if TYPE_CHECKING:
    BaseChangeList = ChangeList
else:
    BaseChangeList = object


class OutboxList(BaseChangeList):
    """A list that says how many rows wait, also in other databases, and for how long the oldest has."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page."""
        super().get_results(request)
        listed = router.db_for_write(OutboxTask)
        notes = [_figures(listed), *(_elsewhere(alias) for alias in outbox_aliases() if alias != listed)]
        try:
            is_used = taskq.settings.enqueue is EnqueueMode.OUTBOX
        except ConfigurationError:
            is_used = True  # a system check reports the setting
        if not is_used:
            notes.append(_("Rows are sent only while ENQUEUE in the setting TASKQ is “outbox”, and it is not."))
        self.search_help_text = " ".join(note for note in notes if note)


def _elsewhere(alias: str) -> str:
    """Return how many rows wait in a database that is not listed; nothing if none does."""
    try:
        text = _figures(alias) if DatabaseTable(alias).figures().waiting else ""
    except DatabaseError as error:
        text = str(error)
    return _("Database %(name)s: %(text)s") % {"name": alias, "text": text} if text else ""


def _figures(alias: str) -> str:
    figures = DatabaseTable(alias).figures()
    if figures.oldest_s is None:
        return _("No task waits.")
    text = ngettext(
        "%(count)s task waits, for %(span)s.", "%(count)s tasks wait, the oldest for %(span)s.", figures.waiting
    )
    return text % {"count": number(figures.waiting), "span": span(timedelta(seconds=figures.oldest_s))}


class OutboxTaskAdminMixin(LiveMixin):
    """Tasks that wait to be sent: since when, and whether a sender has claimed them. Their arguments are not shown.

    The clock of the database counts the spans, as it does for the relay.
    """

    list_display = ("name", "task_id", "queue", "waits", "claimed_for", "size")
    list_filter = ("queue", "name")
    search_fields = ("task_id",)
    fields = list_display
    readonly_fields = list_display
    ordering = ("id",)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows, with their spans, from the database that rows are written to."""
        waits = ExpressionWrapper(Now() - F("created_at"), output_field=DurationField())
        left = ExpressionWrapper(F("claimed_until") - Now(), output_field=DurationField())
        rows = super().get_queryset(request).using(router.db_for_write(OutboxTask))
        return rows.annotate(waits_for=waits, claim_left=left)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list page of the class below, with the figures."""
        return type("OutboxList", (OutboxList, super().get_changelist(request, **kwargs)), {})

    @admin.display(description=gettext_lazy("waits for"), ordering="-created_at")
    def waits(self, obj: Any) -> str:
        """Time since it was written."""
        return span(max(timedelta(), obj.waits_for))

    @admin.display(description=gettext_lazy("claimed for"), ordering="claimed_until", empty_value="-")
    def claimed_for(self, obj: Any) -> str:
        """Time for which a sender has claimed it, or for which it is not tried because its queue refused it."""
        return "" if obj.claim_left is None or obj.claim_left <= timedelta() else span(obj.claim_left)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Return whether an address may filter by this. Messages and unique keys would reveal arguments."""
        field = lookup.partition("__")[0]
        return field not in ("message", "unique_key", "claim") and super().lookup_allowed(lookup, value, request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: rows are written by enqueueing."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False."""
        return False


@admin.register(OutboxTask)
class OutboxTaskAdmin(OutboxTaskAdminMixin, BaseAdmin):
    """Tasks that wait to be sent."""
