"""What all admin pages over Redis stand on: Django's own list, form, history and actions, with rows from Redis.

A page is a mixin over `RedisAdminMixin` and a class that puts it over `ModelAdmin`. The mixins bring no templates of
lists and forms, so they can be put over another `ModelAdmin`, as that of a theme, whose templates are then used:

    class MyTaskAdmin(TaskAdminMixin, unfold.admin.ModelAdmin): ...
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from taskq_core import BrokerError, ConfigurationError
from taskq_django.admin.change_list import over_redis
from taskq_django.admin.frame import FrameMixin
from taskq_django.admin.rows import Rows

if TYPE_CHECKING:
    BaseAdmin = admin.ModelAdmin[Any]
    MixinBase = admin.ModelAdmin[Any]
else:
    BaseAdmin = admin.ModelAdmin  # Django's own class takes no parameter
    MixinBase = object  # a mixin goes over whatever ModelAdmin there is

KEY_DIGITS = 18
"""Most digits of the key of a row of a table."""
LOOKUPS = frozenset({"exact", "in", "isnull", "lt", "lte", "gt", "gte"})
"""How an address may compare the column of a filter: what costs a database little and fails in none."""
_TOO_MANY_DIGITS = re.compile(rf"\d{{{KEY_DIGITS + 1}}}")


class TableAdminMixin(MixinBase):
    """Lists of a table that take from an address only what their filters ask for.

    Django lets an address compare every column in every way: one that is not shown, so that it can be guessed; by a
    regular expression, which fails where it is none and may take for ever; inside JSON, which some databases cannot.
    """

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Return whether an address may ask for this; what it may not is answered 400."""
        columns = {name for field in self.opts.get_fields() for name in (field.name, getattr(field, "attname", ""))}
        listed = {each[0] if isinstance(each, tuple) else each for each in self.get_list_filter(request)}
        front, _, last = lookup.rpartition(LOOKUP_SEP)
        path = front if last in LOOKUPS and front else lookup
        is_column = lookup.partition(LOOKUP_SEP)[0] in {*columns, "pk"}
        if is_column and path not in {*listed, self.date_hierarchy, "id", "pk"} and lookup not in listed:
            return False
        values = value if isinstance(value, list) else [value]
        if any("\0" in str(each) or _TOO_MANY_DIGITS.search(str(each)) for each in values):
            return False  # databases refuse it
        return super().lookup_allowed(lookup, value, request)


class RedisAdminMixin(FrameMixin, MixinBase):
    """Pages of a model whose rows are in Redis. A subclass says in `get_rows` which.

    With Redis down every page says so and can be tried again. A permission of its own, as `run`, is asked for with
    `allows(request, "run")`; `@admin.action(permissions=["run"])` does so through `has_run_permission`.
    """

    trouble_template = "admin/taskq_django/trouble.html"
    show_facets = admin.ShowFacets.NEVER  # facets are counted by a database; filters here say their counts themselves
    list_per_page = 50

    # --- rows ---------------------------------------------------------------------------------------------------------

    def get_rows(self, request: HttpRequest) -> Rows:
        """Return all rows there are. To be implemented."""
        raise NotImplementedError

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows, for Django's own views."""
        return self.get_rows(request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list page of the class below, reading from Redis."""
        return over_redis(super().get_changelist(request, **kwargs))

    # --- permissions --------------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may add a row. Where the model has no such permission nobody may, not even root."""
        return "add" in self.opts.default_permissions and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change rows. As `has_add_permission`."""
        return "change" in self.opts.default_permissions and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete rows. As `has_add_permission`."""
        return "delete" in self.opts.default_permissions and super().has_delete_permission(request, obj)

    def allows(self, request: HttpRequest, action: str) -> bool:
        """Return whether the user has this permission on the model, as `run` for `run_task`."""
        codename = get_permission_codename(action, self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may run (and cancel) what this page lists."""
        return self.allows(request, "run")

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may pause and resume what this page lists."""
        return self.allows(request, "pause")

    # --- actions ------------------------------------------------------------------------------------------------------

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        """Return the actions the user may take; Django's own deletion, which needs a database, is not among them."""
        given = {} if action_location is None else {"action_location": action_location}  # since Django 6.1
        actions = super().get_actions(request, **given)
        return {name: each for name, each in actions.items() if _function_of(each) is not delete_selected}

    def action_links(self, request: HttpRequest, obj: Any) -> list[tuple[str, str]]:
        """Return address and name of each action the user may take on one row, for its own page."""
        return [
            (self._address("act", obj.pk, name), str(getattr(function, "button", description)))
            for name, (function, description) in self._allowed(request).items()
        ]

    def _allowed(self, request: HttpRequest) -> dict[str, tuple[Callable[..., Any], str]]:
        """Functions and descriptions of the actions that may be taken, by name."""
        names: Sequence[str] = [each if isinstance(each, str) else each.__name__ for each in self.actions or ()]
        choices = dict(self.get_action_choices(request, default_choices=[]))
        actions = self.get_actions(request)
        return {name: (_function_of(actions[name]), str(choices[name])) for name in names if name in actions}

    def _refuse_forged(self, request: HttpRequest) -> None:
        """Refuse a post of an action that the user was not offered."""
        if request.method != "POST":
            return
        actions = self.get_actions(request)
        wanted = [name for name in request.POST.getlist("action") if name]
        if not actions or any(name not in actions for name in wanted):
            raise PermissionDenied

    # --- views --------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Django's pages, and one that takes an action on one row."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_act"
        act = path("<path:object_id>/act/<str:action>/", self.admin_site.admin_view(self.act_view), name=name)
        return [act, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or take an action on rows of it."""
        try:
            if self.has_view_or_change_permission(request):
                self._refuse_forged(request)
            return super().changelist_view(request, extra_context)
        except (BrokerError, ConfigurationError) as error:
            return self.render_trouble(request, error)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the page of one row, or the form of a new one; or save it."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except (BrokerError, ConfigurationError) as error:
            return self.render_trouble(request, error)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete one row, by the action of that name if there is one."""
        if "delete_selected" in self._allowed(request):
            return HttpResponseRedirect(self._address("act", unquote(object_id), "delete_selected"))
        raise PermissionDenied

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show who did what to a row."""
        try:
            return super().history_view(request, object_id, extra_context)
        except (BrokerError, ConfigurationError) as error:
            return self.render_trouble(request, error)

    def act_view(self, request: HttpRequest, object_id: str, action: str) -> HttpResponse:
        """Take an action on one row, after its confirmation."""
        allowed = self._allowed(request) if self.has_view_or_change_permission(request) else {}
        if action not in allowed:
            raise PermissionDenied
        key = unquote(object_id)
        try:
            rows = self.get_queryset(request).filter(pk__in=[key])
            if not rows.exists():
                return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            response = allowed[action][0](self, request, rows)
            if isinstance(response, HttpResponse):
                return response
            is_there = self.get_queryset(request).filter(pk__in=[key]).exists()
        except (BrokerError, ConfigurationError) as error:
            return self.render_trouble(request, error)
        return HttpResponseRedirect(self._address("change", key) if is_there else self._address("changelist"))

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Draw the page of one row; a button to delete is there where an action deletes."""
        context.setdefault("show_delete", "delete_selected" in self._allowed(request))
        return super().render_change_form(request, context, *args, **kwargs)

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponse:
        """Say that a row is gone, on the list of the others."""
        text = _("%(name)s “%(key)s” is not there (any more).")
        facts = {"name": capfirst(opts.verbose_name), "key": unquote(object_id)}
        self.message_user(request, text % facts, messages.WARNING)
        return HttpResponseRedirect(self._address("changelist"))

    def render_trouble(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Say what is wrong. With status 200: what failed is not this site, and its operators can read it here.

        What was sent stays in the page, to be sent again.
        """
        posted = [
            (name, value)
            for name, values in (request.POST.lists() if request.method == "POST" else ())
            for value in values
            if name != "csrfmiddlewaretoken"
        ]
        context = {"title": capfirst(self.opts.verbose_name_plural), "trouble": str(error), "posted": posted}
        return self.render_page(request, self.trouble_template, context)


def is_row_key(key: str) -> bool:
    """Return whether a text can be the key of a row of a table: a number that every database takes."""
    return key.isascii() and key.isdecimal() and len(key) <= KEY_DIGITS


def _function_of(action: Any) -> Any:
    """The function of an action: a record since Django 6.1, a tuple before."""
    return action[0] if isinstance(action, tuple) else action.func
