"""What the pages of a model without a table have in common."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.text import capfirst
from django.views.decorators.http import require_safe

from taskq_django.admin.task_list import PlainList

if TYPE_CHECKING:
    BaseAdmin = admin.ModelAdmin[Any]
else:
    BaseAdmin = admin.ModelAdmin  # Django's own class takes no parameter


class ReadOnlyAdmin(BaseAdmin):
    """Pages of a model without a table: nothing can be added, changed or deleted."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False

    def _page(self, route: str, view: Callable[..., HttpResponseBase], suffix: str) -> URLPattern:
        def checked(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            if not self.has_view_permission(request):
                raise PermissionDenied
            return view(request, **kwargs)

        name = f"{self.opts.app_label}_{self.opts.model_name}_{suffix}"
        return path(route, self.admin_site.admin_view(require_safe(checked)), name=name)

    def _render(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        request.current_app = self.admin_site.name  # as Django's own admin does, for the links
        shared = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": True,
            "has_add_permission": False,
            "is_popup": False,
        }
        return TemplateResponse(request, f"admin/taskq_django/{template}", {**shared, **context})

    def _render_trouble(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Say what is wrong. With status 200: what failed is not this site, and its operators can read it here."""
        return self._render(
            request,
            "trouble.html",
            {"title": capfirst(self.opts.verbose_name_plural), "cl": PlainList(self.opts), "trouble": str(error)},
        )
