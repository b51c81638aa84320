"""Pages of ours in the frame of an admin, and the addresses of its pages."""

from typing import Any

from django.contrib.admin.utils import quote, unquote
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from taskq_django.admin.live import LiveMixin, keep_messages


class FrameMixin(LiveMixin):
    """Draws pages of ours in the frame of this admin, and knows the addresses of its pages."""

    confirmation_template = "admin/taskq_django/confirmation.html"

    def render_page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        """Draw a page of ours in the frame of this admin."""
        request.current_app = self.admin_site.name  # as Django's own admin does, for links
        shared = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "subtitle": None,
            "changelist_url": self._address("changelist"),
        }
        return keep_messages(request, TemplateResponse(request, template, {**shared, **context}))

    def page_of(self, request: HttpRequest, row: Any) -> str:
        """Return the address of the page of one row."""
        return self._address("change", row.pk)

    def way_back(self, request: HttpRequest) -> str:
        """Return the address from which an action was chosen."""
        match = request.resolver_match
        if match is not None and "object_id" in match.kwargs:
            return self._address("change", unquote(match.kwargs["object_id"]))
        return request.get_full_path()

    def _address(self, page: str, key: str | None = None, *more: str) -> str:
        """Return the address of a page of this model."""
        args = () if key is None else (quote(key), *more)
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)
