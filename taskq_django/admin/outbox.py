"""Tasks that wait in the outbox, of one database at a time.

A table stands behind these pages, so they are Django's own throughout; the mixin can be put over another `ModelAdmin`:

    class MyOutboxTaskAdmin(OutboxTaskAdminMixin, unfold.admin.ModelAdmin): ...
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db import DatabaseError, router
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now
from django.http import HttpRequest, QueryDict
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

DATABASE_VAR = "database"


def asked_alias(request: HttpRequest) -> str:
    """Return the database whose rows are looked at: the one an address asks for, or the one that rows are written to.

    The pages of single rows are told by the filters of the list they were opened from, as Django keeps them.
    """
    known = outbox_aliases()
    kept = QueryDict(request.GET.get("_changelist_filters", ""))
    usual: str = router.db_for_write(OutboxTask)
    asked = (request.GET.get(DATABASE_VAR), kept.get(DATABASE_VAR), usual)
    return next((alias for alias in asked if alias in known), usual)


class DatabaseFilter(admin.SimpleListFilter):
    """The database, where several have an outbox. One is always chosen: a row's key counts in its database alone."""

    title = gettext_lazy("database")
    parameter_name = DATABASE_VAR

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the databases, nothing to choose if there is one."""
        self._asked = asked_alias(request)
        aliases = outbox_aliases()
        return [(alias, alias) for alias in aliases] if len(aliases) > 1 else []

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Return the choices."""
        for alias, title in self.lookup_choices:
            query_string = changelist.get_query_string({DATABASE_VAR: str(alias)})
            yield {"selected": alias == self._asked, "query_string": query_string, "display": title}

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the rows as they are: `get_queryset` has chosen the database."""
        return queryset


class OutboxList(BaseChangeList):
    """A list that says how many rows wait, also in the other databases, and for how long the oldest has."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page."""
        super().get_results(request)
        asked, aliases = asked_alias(request), outbox_aliases()
        notes = [_figures(alias, is_named=len(aliases) > 1) for alias in aliases if alias == asked]
        notes += [_figures(alias, is_named=True, is_other=True) for alias in aliases if alias != asked]
        if not _is_used():
            notes.append(_("Rows are sent only while ENQUEUE in the setting TASKQ is “outbox”, and it is not."))
        self.search_help_text = " ".join(note for note in notes if note)


def _is_used() -> bool:
    try:
        return taskq.settings.enqueue is EnqueueMode.OUTBOX
    except ConfigurationError:
        return True  # a setting that is wrong is told by the system check


def _figures(alias: str, *, is_named: bool, is_other: bool = False) -> str:
    """How many rows of a database wait; nothing for another one than is looked at in which none does."""
    try:
        figures = DatabaseTable(alias).figures()
    except DatabaseError as error:
        if not is_other:
            raise
        return _("Database %(name)s: %(error)s") % {"name": alias, "error": error}
    if is_other and not figures.waiting:
        return ""
    if figures.oldest_s is None:
        text = _("No task waits.")
    else:
        text = ngettext(
            "%(count)s task waits, for %(span)s.",
            "%(count)s tasks wait, the oldest for %(span)s.",
            figures.waiting,
        ) % {"count": number(figures.waiting), "span": span(timedelta(seconds=figures.oldest_s))}
    return _("Database %(name)s: %(text)s") % {"name": alias, "text": text} if is_named else text


class OutboxTaskAdminMixin(LiveMixin):
    """Tasks that wait to be sent: which, since when, and whether somebody is at it. Their arguments are not shown.

    Spans are counted by the database's own clock, as those who send the rows do.
    """

    list_display = ("name", "task_id", "queue", "waits", "claimed_for", "size")
    list_filter = (DatabaseFilter, "queue", "name")
    search_fields = ("task_id",)
    fields = ("name", "task_id", "queue", "waits", "claimed_for", "size")
    readonly_fields = fields
    ordering = ("id",)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows of the database that is asked for."""
        waits = ExpressionWrapper(Now() - F("created_at"), output_field=DurationField())
        left = ExpressionWrapper(F("claimed_until") - Now(), output_field=DurationField())
        rows = super().get_queryset(request).using(asked_alias(request))
        return rows.annotate(waits_for=waits, claim_left=left)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list page of the class below, with the figures."""
        return type("OutboxList", (OutboxList, super().get_changelist(request, **kwargs)), {})

    @admin.display(description=gettext_lazy("waits for"), ordering="-created_at")
    def waits(self, obj: Any) -> str:
        """How long ago it was written."""
        return span(max(timedelta(), obj.waits_for))

    @admin.display(description=gettext_lazy("claimed for"), ordering="claimed_until", empty_value="-")
    def claimed_for(self, obj: Any) -> str:
        """How long it is still left to who is sending it, or alone because its queue refused it."""
        return "" if obj.claim_left is None or obj.claim_left <= timedelta() else span(obj.claim_left)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Return whether an address may filter by this. Messages hold arguments, which these pages do not show."""
        return not lookup.startswith("message") and super().lookup_allowed(lookup, value, request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may: rows are written by enqueueing."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete a row in the database it was read from, whatever the router says of others."""
        obj.delete(using=obj._state.db)


@admin.register(OutboxTask)
class OutboxTaskAdmin(OutboxTaskAdminMixin, BaseAdmin):
    """Tasks that wait to be sent."""
