"""The list of tasks, in the form that the admin's own templates draw.

Filters, search and pages are drawn by Django's templates and tags, so that the list looks like every other one in this
version of Django; `TaskList` is to them what `ChangeList` is for a model with a table.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypedDict

from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import PAGE_VAR, SEARCH_VAR
from django.core.paginator import Paginator
from django.db.models.options import Options
from django.http import HttpRequest, QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from taskq_core import TaskInfo, TaskNotFoundError, TaskState
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import LISTED_STATES, Inspector, QueueInfo, UnreadableTask, total_of

QUEUE_VAR = "queue"
STATE_VAR = "state"

STATE_NAMES: dict[TaskState, str | Promise] = {
    TaskState.ACTIVE: pgettext_lazy("task state", "active"),
    TaskState.PENDING: pgettext_lazy("task state", "pending"),
    TaskState.SCHEDULED: pgettext_lazy("task state", "scheduled"),
    TaskState.RETRY: pgettext_lazy("task state", "retry"),
    TaskState.ARCHIVED: pgettext_lazy("task state", "archived"),
    TaskState.COMPLETED: pgettext_lazy("task state", "completed"),
    TaskState.AGGREGATING: pgettext_lazy("task state", "aggregating"),
}


def object_id(queue: str, task_id: str) -> str:
    """Return the part of a URL that names a task. Each part is escaped, so the first slash parts them."""
    return f"{quote(queue)}/{quote(task_id)}"


class Choice(TypedDict):
    """One link of a filter."""

    selected: bool
    query_string: str
    display: str


class Filter:
    """One filter of the sidebar. Each choice says how many tasks it finds."""

    template = "admin/filter.html"

    def __init__(self, title: str, parameter: str, value: str | None, sizes: Sequence[tuple[Any, ...]]) -> None:
        self.title = title
        self._parameter = parameter
        self._value = value
        self._sizes = sizes

    def choices(self, changelist: "TaskList") -> Iterator[Choice]:
        """Yield the links."""
        yield {
            "selected": self._value is None,
            "query_string": changelist.get_query_string(remove=[self._parameter]),
            "display": _("All"),
        }
        for value, display, size in self._sizes:
            yield {
                "selected": self._value == value,
                "query_string": changelist.get_query_string({self._parameter: value}),
                "display": f"{display} ({size})",
            }


class PlainList:
    """What the admin's templates ask of a list without filters, search and pages.

    Args:
        opts: Options of the model that stands for what is listed.
    """

    formset = None
    is_popup = False
    has_filters = False
    has_active_filters = False
    date_hierarchy = None

    def __init__(self, opts: "Options[Any]") -> None:
        self.opts = opts


class TaskList(PlainList):
    """A page of tasks with its filters.

    Args:
        request: What was asked: `queue`, `state`, `q` and `p` of the query string. What cannot be is ignored.
        opts: Options of the model that stands for tasks.
        inspector: Reads the tasks.
        per_page: Most tasks on a page.
    """

    show_all = False
    can_show_all = False
    is_facets_optional = False
    add_facets = False
    has_filters = True
    show_full_result_count = True
    search_fields: ClassVar[tuple[str, ...]] = ("id",)
    search_help_text = gettext_lazy("The whole id of a task.")

    def __init__(self, request: HttpRequest, opts: "Options[Any]", inspector: Inspector, *, per_page: int) -> None:
        super().__init__(opts)
        self.params = {name: value for name, value in request.GET.items() if name != PAGE_VAR}
        self.query = request.GET.get(SEARCH_VAR, "").strip()
        self.infos = inspector.queue_infos()
        names = [info.name for info in self.infos]
        self.queue = _one_of(names, request.GET.get(QUEUE_VAR))
        self.state = _one_of(list(TaskState), request.GET.get(STATE_VAR))
        chosen = [info for info in self.infos if self.queue in (None, info.name)]
        self.full_result_count = total_of(self.infos, None)
        self.has_active_filters = self.queue is not None or self.state is not None
        self.aggregating = sum(info.sizes[TaskState.AGGREGATING] for info in chosen)
        queues = [(info.name, info.name, total_of([info], self.state)) for info in self.infos]
        states = [(state, STATE_NAMES[state], total_of(chosen, state)) for state in LISTED_STATES]
        self.filter_specs = [
            Filter(_("queue"), QUEUE_VAR, self.queue, queues),
            Filter(_("state"), STATE_VAR, self.state, states),
        ]
        self.page_num = 1
        self.tasks: Sequence[TaskInfo | UnreadableTask]
        if self.query:
            self.tasks = self._search(inspector, chosen)
            self.result_count = len(self.tasks)
        else:
            self.result_count = total_of(chosen, self.state)
        # The paginator only counts pages; a page's tasks are read from Redis.
        self.paginator = Paginator(range(self.result_count), per_page)
        self.multi_page = self.result_count > per_page
        if not self.query:
            self.page_num = _page_number(request.GET.get(PAGE_VAR), self.paginator.num_pages)
            self.tasks = inspector.tasks_of(chosen, self.state, page=self.page_num, page_size=per_page).tasks

    def _search(self, inspector: Inspector, chosen: Iterable[QueueInfo]) -> list[TaskInfo | UnreadableTask]:
        found = []
        for info in chosen:
            try:
                task = inspector.task(info.name, self.query)
            except (QueueNotFoundError, TaskNotFoundError):
                continue
            if self.state in (None, task.state):
                found.append(task)
        return found

    @property
    def clear_all_filters_qs(self) -> str:
        """The query string without filters."""
        return self.get_query_string(remove=[QUEUE_VAR, STATE_VAR])

    def get_query_string(self, new_params: dict[str, Any] | None = None, remove: Iterable[str] | None = None) -> str:
        """Return the query string of this list with parameters replaced or removed."""
        removed = set(remove or ())
        parameters = {name: value for name, value in self.params.items() if name not in removed} | (new_params or {})
        query = QueryDict(mutable=True)
        for name, value in sorted(parameters.items()):
            query[name] = str(value)
        return f"?{query.urlencode()}"


def _one_of(known: Sequence[Any], value: str | None) -> Any:
    return next((each for each in known if each == value), None)


def _page_number(text: str | None, pages: int) -> int:
    """The page asked for, or the nearest there is."""
    if text is None or not text.isascii() or not text.isdigit():
        return 1
    return min(max(int(text[:12]), 1), pages)
