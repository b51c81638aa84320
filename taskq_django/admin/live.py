"""Pages that refresh themselves: a small script loads the same page again and replaces the parts that have changed.

Without JavaScript, the page does not change after it was loaded. The script is a separate file, which a strict content
security policy allows, and it loads only the address of the page.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.forms import Media
from django.forms.widgets import Script
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    MixinBase = admin.ModelAdmin[Any]
else:
    MixinBase = object

LISTS: list[Any] = [Script("taskq_django/search.js", defer=True), Script("taskq_django/list.js", defer=True)]
LIVE_HEADER = "X-TaskQ-Live"
"""Header of the refreshing script's requests. The script shows no messages, so its requests must not consume them."""


class LiveMixin(MixinBase):
    """Adds a script to admin pages that refreshes the list and elements with `data-taskq-live`.

    The page is not refreshed in a background tab, or while a row or text is selected or a field has the focus. After a
    failed request, the interval doubles up to a minute.
    """

    live_seconds: int = 5
    """Seconds between two refreshes; 0 switches them off."""

    @property
    def media(self) -> Media:
        """The CSS files and scripts of the pages."""
        css: dict[str, Sequence[str]] = {"all": ["taskq_django/admin.css", "taskq_django/charts.css"]}
        if not self.live_seconds:
            return super().media + Media(css=css, js=LISTS)
        script = Script(
            "taskq_django/live.js",
            **{
                "defer": True,
                "data-seconds": str(self.live_seconds),
                "data-header": LIVE_HEADER,
                "data-pause": _("Pause live updates"),
                "data-resume": _("Resume live updates"),
                "data-failed": _("Not up to date: the page could not be loaded. Trying again."),
                "data-ended": _("No longer updated: this page does not exist any more, or you are logged out."),
            },
        )
        return super().media + Media(css=css, js=[script, *LISTS])  # type: ignore[list-item]  # the stubs allow only str

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list."""
        return keep_messages(request, super().changelist_view(request, extra_context))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the page of one row."""
        return keep_messages(request, super().changeform_view(request, object_id, form_url, extra_context))


def keep_messages(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Keep the user's messages for the next page if the refreshing script requested this one."""
    if LIVE_HEADER in request.headers and isinstance(response, TemplateResponse):
        storage = messages.get_messages(request)

        def unread(_response: HttpResponse) -> None:
            storage.used = False  # type: ignore[union-attr]  # the admin requires the messages framework

        response.add_post_render_callback(unread)
    return response
