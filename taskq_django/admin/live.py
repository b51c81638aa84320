"""Pages that keep themselves up to date: a small script asks for the same page and swaps what has changed.

Without JavaScript the page does not change after it was loaded. The script is a separate file, so that a strict
content security policy lets it run, and knows no address but that of the page.
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

SEARCH = Script("taskq_django/search.js", defer=True)
LIVE_HEADER = "X-TaskQ-Live"
"""Header of the script's requests: the page is not shown as a whole."""


class LiveMixin(MixinBase):
    """A list, and regions marked with `data-taskq-live`, that are refreshed while the page is visible.

    Nothing is refreshed while a row is selected, text is marked or a field has the focus, nor in a tab in the
    background. After an answer that did not come the next is asked for later, up to a minute.
    """

    live_seconds: int = 5
    """Seconds between two looks; 0 switches it off."""

    @property
    def media(self) -> Media:
        """The files of the pages, with the script and its texts."""
        css: dict[str, Sequence[str]] = {"all": ["taskq_django/admin.css", "taskq_django/charts.css"]}
        if not self.live_seconds:
            return super().media + Media(css=css, js=[SEARCH])  # type: ignore[list-item]  # as below
        script = Script(
            "taskq_django/live.js",
            **{
                "defer": True,
                "data-seconds": str(self.live_seconds),
                "data-header": LIVE_HEADER,
                "data-pause": _("Pause live updates"),
                "data-resume": _("Resume live updates"),
                "data-failed": _("Not up to date: the page could not be read. It is tried again."),
                "data-ended": _("No longer updated: this page is gone, or you are logged out."),
            },
        )
        return super().media + Media(css=css, js=[script, SEARCH])  # type: ignore[list-item]  # the stubs know text only

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
    """Keep messages for the next visible page if the script requested this one."""
    if LIVE_HEADER in request.headers and isinstance(response, TemplateResponse):
        storage = messages.get_messages(request)

        def unread(_response: HttpResponse) -> None:
            storage.used = False  # type: ignore[union-attr]  # the admin demands the messages framework

        response.add_post_render_callback(unread)
    return response
