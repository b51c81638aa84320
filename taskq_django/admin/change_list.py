"""Django's list page over rows from Redis.

What `get_changelist` of the class below gives is kept and ours is mixed into it, so that a theme's own list page stays.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib.admin.filters import SimpleListFilter
from django.contrib.admin.views.main import ALL_VAR, PAGE_VAR, ChangeList
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    BaseChangeList = ChangeList
else:
    BaseChangeList = object


CURSOR_VAR = "after"
"""Parameter that says where a search goes on."""


class RedisChangeList(BaseChangeList):
    """The part of a list page that is ours.

    The rows of a page are read before it is drawn, so that Redis failing is told rather than an error. A page beyond
    the last is the last. What the address asks for that no filter knows is ignored.
    """

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the address asks of the filters there are."""
        asked = super().get_filters_params(params)
        filters = [each for each in self.list_filter if isinstance(each, type) and issubclass(each, SimpleListFilter)]
        if len(filters) < len(self.list_filter):
            return asked  # a filter of another kind takes parameters that only it knows
        known = {each.parameter_name for each in filters}
        self.params.pop(CURSOR_VAR, None)  # the search form asks from the start again
        return {name: value for name, value in asked.items() if name in known}

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page."""
        paginator = self.model_admin.get_paginator(request, self.queryset, self.list_per_page)
        self.page_num = min(max(self.page_num, 1), paginator.num_pages)
        super().get_results(request)
        self.result_list: Any = list(self.result_list)
        note, cursor = self.queryset.note, self.queryset.next_cursor
        if cursor is not None:
            address = self.get_query_string({CURSOR_VAR: cursor}, remove=[PAGE_VAR])
            bar: SafeString | str = ""
            if self.queryset.searched is not None:
                bar = format_html('<progress value="{}" max="{}"></progress> ', *self.queryset.searched)
            follows = SafeString("" if self.multi_page else " data-taskq-search")  # search.js, where no row is left out
            note = format_html('<span{}>{}{} <a href="{}">{}</a></span>', follows, bar, note, address, _("Continue"))
        if note:
            self.search_help_text = note

    def get_query_string(self, new_params: dict[str, Any] | None = None, remove: Iterable[str] | None = None) -> str:
        """Return the address of this list with parameters replaced. Only its pages keep where a search goes on."""
        is_same_search = new_params is not None and set(new_params) <= {PAGE_VAR, ALL_VAR, CURSOR_VAR}
        return super().get_query_string(new_params, [*(remove or ()), *(() if is_same_search else (CURSOR_VAR,))])


_made: dict[type[ChangeList], type[ChangeList]] = {}


def over_redis(parent: type[ChangeList]) -> type[ChangeList]:
    """Return a list page class with ours mixed in."""
    if issubclass(parent, RedisChangeList):
        return parent
    if parent not in _made:
        _made[parent] = type(f"Redis{parent.__name__}", (RedisChangeList, parent), {})
    return _made[parent]
