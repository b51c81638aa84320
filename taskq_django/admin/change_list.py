"""Django's change list over rows from Redis.

`RedisAdminMixin` mixes it into the change list class of its base class, so that a theme's own class is used too.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib.admin.views.main import ALL_VAR, PAGE_VAR, ChangeList
from django.http import HttpRequest

from taskq_django.admin.formats import render

if TYPE_CHECKING:
    BaseChangeList = ChangeList
else:
    BaseChangeList = object

CURSOR_VAR = "after"
"""Query parameter with the cursor at which a search continues."""


class CountSoFar(int):
    """Number of the rows that a search has found so far, with one more, because others may follow.

    Its text is such as "50+".
    """

    def __str__(self) -> str:
        return f"{int(self) - 1}+"


class RedisChangeList(BaseChangeList):
    """Mixin for a change list.

    The rows of a page are read before it is drawn, so that a failure of Redis can be reported. A page number beyond the
    last page shows the last page. Unknown query parameters are ignored.

    A list of which only a part was read shows its progress instead of numbers of rows and pages, and offers only the
    columns by which it can be sorted.
    """

    search_progress = ""
    """How much of the rows a search has read, with a link to continue. "" if everything was read in one request."""

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the query parameters of the filters."""
        known = {getattr(each, "parameter_name", "") for each in self.list_filter}
        self.params.pop(CURSOR_VAR, None)  # a new search must not continue at the cursor of the previous one
        return {name: value for name, value in super().get_filters_params(params).items() if name in known}

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page."""
        paginator = self.model_admin.get_paginator(request, self.queryset, self.list_per_page)
        self.page_num = min(max(self.page_num, 1), paginator.num_pages)
        super().get_results(request)
        rows = self.queryset
        self.result_list: Any = list(self.result_list)
        if rows.sortable is not None:
            self.sortable_by: Any = [
                name for name in self.sortable_by if self.get_ordering_field(name) in rows.sortable
            ]
        if rows.is_part:
            if rows.next_cursor is not None and self.result_list:
                self.result_count = CountSoFar(rows.search.matched + 1)
            else:
                self.result_count = rows.search.matched
            self.full_result_count = self.result_count  # Django shows both if they differ
            address = self.get_query_string({CURSOR_VAR: rows.next_cursor}, remove=[PAGE_VAR])
            self.search_progress = render("search_progress.html", rows=rows, address=address)
            self.show_admin_actions = self.show_admin_actions and bool(self.result_list)
        if self.search_progress or rows.note:
            self.search_help_text = self.search_progress or rows.note

    def get_query_string(self, new_params: dict[str, Any] | None = None, remove: Iterable[str] | None = None) -> str:
        """Return the query string of this list with changed parameters. Only links to other pages keep the cursor."""
        is_same_search = new_params is not None and set(new_params) <= {PAGE_VAR, ALL_VAR, CURSOR_VAR}
        return super().get_query_string(new_params, [*(remove or ()), *(() if is_same_search else (CURSOR_VAR,))])
