"""Base classes of all admin pages over Redis: Django's own list, form, history and actions, with rows from Redis.

Each page consists of a mixin derived from `RedisAdminMixin`, and a class that combines it with `ModelAdmin`. The mixins
have no templates for lists and forms, so they also work with another `ModelAdmin`, such as a theme's, whose templates
are then used:

    class MyTaskAdmin(TaskAdminMixin, unfold.admin.ModelAdmin): ...
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import flatten_fieldsets, lookup_field, quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db import connections, router, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache

from taskq_core import BrokerError, ConfigurationError
from taskq_django.admin.change_list import RedisChangeList
from taskq_django.admin.formats import Links
from taskq_django.admin.live import LiveMixin, MixinBase, keep_messages
from taskq_django.admin.rows import Rows
from taskq_django.tables import explained

if TYPE_CHECKING:
    BaseAdmin = admin.ModelAdmin[Any]
else:
    BaseAdmin = admin.ModelAdmin  # the class is generic only in the type stubs


class FrameMixin(LiveMixin):
    """Draws taskq's own pages in the layout of the admin site, and returns addresses and permissions of the model."""

    confirmation_template = "admin/taskq_django/confirmation.html"
    trouble_template = "admin/taskq_django/trouble.html"

    def render_page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        """Draw one of taskq's own pages in the layout of the admin site."""
        request.current_app = self.admin_site.name  # the template tag `{% url %}` reads this to find pages of the site
        shared = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "subtitle": None,
            "changelist_url": self.address("changelist"),
        }
        return keep_messages(request, TemplateResponse(request, template, {**shared, **context}))

    def back_url(self, request: HttpRequest) -> str:
        """Return the address of the page on which an action was chosen."""
        match = request.resolver_match
        if match is not None and "object_id" in match.kwargs:
            return self.address("change", unquote(match.kwargs["object_id"]))
        return request.get_full_path()

    def address(self, page: str, key: str | None = None, *more: str) -> str:
        """Return the address of a page of this model."""
        args = () if key is None else (quote(key), *more)
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def allows(self, request: HttpRequest, action: str) -> bool:
        """Return whether the user has a permission on the model, such as `run` for `run_task`."""
        codename = get_permission_codename(action, self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may run (and cancel) the rows of this page."""
        return self.allows(request, "run")

    def has_signal_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may send signals to the rows of this page."""
        return self.allows(request, "signal")

    # --- views --------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Return Django's pages. Each shows errors of Redis, of the settings, and of a missing table."""
        return self.reporting(super().get_urls())

    def reporting(self, patterns: list[URLPattern]) -> list[URLPattern]:
        """Let views show errors of Redis, of the settings, and of a missing table. Return the patterns."""
        for each in patterns:
            each.callback = self._reporting(each.callback)
        return patterns

    def _reporting(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @functools.wraps(view)
        @never_cache
        def reporting(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                with self._table(request):
                    return view(request, *args, **kwargs)
            except (BrokerError, ConfigurationError) as error:
                # The status is 200, because Django works and only Redis, a table or the settings have the problem.
                title = capfirst(self.opts.verbose_name_plural)
                return self.render_page(request, self.trouble_template, {"title": title, "trouble": str(error)})

        return reporting

    @contextmanager
    def _table(self, request: HttpRequest) -> Iterator[None]:
        """Explain errors of the table, if the model has one."""
        if not self.opts.managed:
            yield
            return
        alias = router.db_for_write(self.model)
        # After an error inside a transaction (ATOMIC_REQUESTS), the page of the error needs further queries.
        needs_savepoint = request.method == "GET" and connections[alias].in_atomic_block
        with explained(alias, self.model), transaction.atomic(using=alias) if needs_savepoint else nullcontext():
            yield

    def row_label(self, row: Any) -> str:
        """Return the text of a row on a confirmation page."""
        return str(row)

    def row_details(self, row: Any, count: int) -> SafeString | str:
        """Return what a confirmation page for a number of rows says about a row after its label."""
        return ""

    def redirect_missing(self, request: HttpRequest, key: str) -> HttpResponse:
        """Redirect to the list with a message that a row does not exist any more."""
        text = _("%(name)s “%(key)s” does not exist any more.")
        facts = {"name": capfirst(self.opts.verbose_name), "key": key}
        self.message_user(request, text % facts, messages.WARNING)
        return HttpResponseRedirect(self.address("changelist"))


class RedisAdminMixin(FrameMixin, MixinBase):
    """Pages of a model whose rows are in Redis. A subclass implements `get_rows`.

    While Redis does not answer, every page shows the error and a link to try again.
    """

    show_facets = admin.ShowFacets.NEVER  # Django would count database rows; taskq's filters count in Redis
    list_per_page = 50
    actions: Any = ()
    unreadable_fieldsets: Any = ()
    """Fieldsets of the page of a row that cannot be decoded."""

    # --- rows ---------------------------------------------------------------------------------------------------------

    def get_rows(self, request: HttpRequest) -> Rows:
        """Return all rows."""
        raise NotImplementedError

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return all rows, for Django's own views."""
        return self.get_rows(request)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the rows that contain the text. The rows class searches; `search_fields` only shows the form."""
        text = search_term.strip() if self.get_search_fields(request) else ""
        return (queryset.matching(text) if text else queryset), False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the change list class of the base class, extended to read from Redis."""
        return type("RedisList", (RedisChangeList, super().get_changelist(request, **kwargs)), {})

    def read_one(self, request: HttpRequest, key: str) -> Any:
        """Return one row with the data of its page, None if it does not exist."""
        return next(iter(self.get_rows(request).pick([key])), None)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return one row with links to other pages, and to the actions that apply to it."""
        obj = self.read_one(request, object_id)
        if obj is not None:
            obj.links = Links(request, self.admin_site)
            obj.action_links = [
                (self.address("act", obj.pk, name), function.button)
                for name, function in self.allowed_actions(request).items()
                if self.offers(name, obj)
            ]
        return obj

    # --- permissions --------------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may add a row. It is False if the model has no such permission."""
        return "add" in self.opts.default_permissions and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change rows. It is False if the model has no such permission."""
        return "change" in self.opts.default_permissions and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete rows. It is False if the model has no such permission."""
        return "delete" in self.opts.default_permissions and super().has_delete_permission(request, obj)

    # --- actions ------------------------------------------------------------------------------------------------------

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        """Return the actions that the user may use, except Django's own deletion, which needs a database."""
        # Django passes this argument since 6.1.
        given = {} if action_location is None else {"action_location": action_location}
        actions = super().get_actions(request, **given)
        return {name: each for name, each in actions.items() if _function_of(each) is not delete_selected}

    def offers(self, action: str, obj: Any) -> bool:
        """Return whether the page of a row has a button for an action."""
        return True

    def allowed_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the functions of the actions that the user may use on one row, by name. Each has a `button`."""
        functions = {name: _function_of(each) for name, each in self.get_actions(request).items()}
        return {name: function for name, function in functions.items() if hasattr(function, "button")}

    @admin.display(description=gettext_lazy("actions"))
    def buttons(self, obj: Any) -> SafeString:
        """Return the buttons of the actions."""
        link = '<a role="button" class="button taskq-action" href="{}">{}</a>'
        return format_html_join(" ", link, obj.action_links)

    def act_view(self, request: HttpRequest, object_id: str, action: str) -> HttpResponse:
        """Show the confirmation page of an action on one row, or perform the confirmed action."""
        allowed = self.allowed_actions(request) if self.has_view_or_change_permission(request) else {}
        if action not in allowed:
            raise PermissionDenied
        key = unquote(object_id)
        rows = self.get_queryset(request).filter(pk__in=[key])
        if not rows.count():
            return self.redirect_missing(request, key)
        response = allowed[action](self, request, rows)
        if isinstance(response, HttpResponse):
            return response
        exists = self.get_queryset(request).filter(pk__in=[key]).count()
        return HttpResponseRedirect(self.address("change", key) if exists else self.address("changelist"))

    # --- views --------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Return Django's pages and a page for actions on one row."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_act"
        act = path("<path:object_id>/act/<str:action>/", self.admin_site.admin_view(self.act_view), name=name)
        return [*self.reporting([act]), *super().get_urls()]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fieldsets of a row's page, without fields that have no value."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None:
            return fieldsets
        shown = [
            (heading, {**options, "fields": [name for name in options["fields"] if self.has_value(obj, str(name))]})
            for heading, options in fieldsets
        ]
        return [(heading, options) for heading, options in shown if options["fields"]]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return all fields in `fieldsets`. Other fields can be edited."""
        return flatten_fieldsets((*(self.fieldsets or ()), *self.unreadable_fieldsets))

    def has_value(self, obj: Any, name: str) -> bool:
        """Return whether a field has a value."""
        return lookup_field(name, obj, self)[2] not in ("", None)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Redirect to the action that deletes one row."""
        if "delete_selected" in self.allowed_actions(request):
            return HttpResponseRedirect(self.address("act", unquote(object_id), "delete_selected"))
        raise PermissionDenied

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Draw the page of one row. It has a delete button if the model has an action for that."""
        context.setdefault("show_delete", "delete_selected" in self.allowed_actions(request))
        return super().render_change_form(request, context, *args, **kwargs)

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponse:
        return self.redirect_missing(request, unquote(object_id))


def _function_of(action: Any) -> Any:
    """Return the function of an action. Before Django 6.1, an action is a tuple that starts with its function."""
    return action[0] if isinstance(action, tuple) else action.func
