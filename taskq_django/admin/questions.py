"""The admin's inbox: the open questions of tasks, and the forms that answer them."""

from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy, pgettext_lazy

from taskq_core import Question as OpenQuestion
from taskq_core.errors import StepError
from taskq_core.inspector import Inspector
from taskq_core.views import AnswerField, answer_form
from taskq_core.views.labels import signal_question
from taskq_django.admin.actions import AdminForm, SkippedError, as_code, row_action
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.columns import column
from taskq_django.admin.formats import HIDDEN, Links, arguments_line, block, in_active_language, moment, sees_payloads
from taskq_django.admin.rows import ListRows, Rows, row_of
from taskq_django.app import taskq
from taskq_django.models import Question

QUESTIONS_MAX = 1000
"""Maximum number of questions in the list."""
PREFIX = "answer_"
"""The names of the form's fields begin with this."""


class ApproveForm(AdminForm):
    """The fields of the answer to the selected question. Without fields if several are selected."""

    schema_of_many: ClassVar[Any] = {"type": "boolean"}

    def __init__(self, modeladmin: Any, request: HttpRequest, data: Any = None, rows: Any = ()) -> None:
        super().__init__(modeladmin, request, data, rows)
        few = list(rows[:2])
        self._answer = answer_form(few[0].record.answer_schema if len(few) == 1 else self.schema_of_many)
        for each in self._answer.fields:
            self.add(modeladmin, request, PREFIX + each.name, _column(each))
            if each.kind == "json":
                as_code(self.fields[PREFIX + each.name], 6)

    def clean(self) -> dict[str, Any]:
        """Return the texts in the fields, after a check of their form."""
        texts = {each.name: _text(self.cleaned_data.get(PREFIX + each.name)) for each in self._answer.fields}
        if not self.errors:
            try:
                self._answer.read(self._answer.buttons[0], texts)
            except StepError as error:
                raise ValidationError(str(error)) from None
        return {"texts": texts}


class AnswerForm(ApproveForm):
    """The fields of the answer to the selected question. A field for JSON if several are selected."""

    schema_of_many: ClassVar[Any] = {}


def _column(field: AnswerField) -> "models.Field[Any, Any]":
    """Return the model field for a field of an answer."""
    label = field.label or _("Answer")
    options: dict[str, Any] = {"blank": not field.is_required, "default": field.initial}
    match field.kind:
        case "checkbox":
            return models.BooleanField(label, default=bool(field.initial))
        case "choice":
            return models.CharField(label, choices=list(field.choices), max_length=1024, **options)
        case "integer" | "number":
            kind = models.IntegerField if field.kind == "integer" else models.FloatField
            return kind(label, null=not field.is_required, **{**options, "default": field.initial or None})
        case "json":
            return models.TextField(label, help_text="JSON", **options)
    return models.CharField(label, max_length=65_536, **{**options, "blank": True})


def _text(value: Any) -> str:
    return "" if value in (None, False) else str(value)


def _answer_action(name: str, button: str, description: Any) -> Any:
    """Return an action that answers questions with a button of their forms."""

    def act(_self: Any, row: Question, _deadline: object, texts: Any) -> tuple[str, int]:
        found: OpenQuestion = row.record
        form = answer_form(found.answer_schema)
        if button not in form.buttons:
            raise SkippedError(_("its answer has another form"))
        Inspector(taskq).answer_task(
            found.queue,
            found.task_id,
            found.number,
            form.read(button, texts),
            by=row.user,
            generation=found.generation,
        )
        return f"Answered the question “{found.name}” of the task {found.task_id}: {button}.", 1

    def question(count: int, rows: Any) -> str:
        if count == 1:
            with in_active_language():
                return signal_question(name, rows[0].record.task, rows[0].record.name)
        return ngettext("Answer %(count)d question?", "Answer %(count)d questions?", count) % {"count": count}

    act.__name__ = name
    return row_action(
        report=ngettext_lazy("%(count)d question was answered.", "%(count)d questions were answered.", "count"),
        description=description,
        button=_(button),
        question=question,
        permissions=["signal"],
        form=AnswerForm if name == "answer" else ApproveForm,
    )(act)


class QuestionAdminMixin(RedisAdminMixin):
    """The inbox, as a mixin for a `ModelAdmin`."""

    list_display = ("name", "task", "asked", "since", "until")
    actions = ("approve", "reject", "answer")
    fieldsets = ((None, {"fields": ("name", "task", "all_asked", "since", "until", "buttons")}),)

    def get_rows(self, request: HttpRequest) -> Rows:
        """Return the open questions of all queues, the oldest first."""
        links, user, sees = Links(request, self.admin_site), request.user.get_username(), sees_payloads(request)
        found = Inspector(taskq).questions(limit=QUESTIONS_MAX)
        return ListRows(
            Question,
            [
                row_of(Question, f"{each.number} {each.queue} {each.task_id}", each, links=links, user=user, sees=sees)
                for each in found
            ],
        )

    def has_signal_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may answer questions: the permission to send signals to tasks."""
        return bool(request.user.has_perm("taskq_django.signal_task"))

    def offers(self, action: str, obj: Any) -> bool:
        """Return whether the form of a question has the button of an action."""
        return action.capitalize() in answer_form(obj.record.answer_schema).buttons

    def row_label(self, row: Any) -> str:
        """Return the name of a question."""
        return str(row.record.name)

    def row_details(self, row: Any, count: int) -> SafeString | str:
        """Return what is asked: in full if it is the only question."""
        return format_html(" {}", self.all_asked(row) if count == 1 else self.asked(row))

    # --- columns ------------------------------------------------------------------------------------------------------

    name = column(_("question"), "name")
    since = column(_("asked at"), "since", moment)
    until = column(_("until"), "until", lambda until: "" if until is None else moment(until))

    @admin.display(description=_("task"))
    def task(self, row: Any) -> SafeString | str:
        """Return a link to the task."""
        link: SafeString | str = row.links.task(row.record.task, row.record.queue, row.record.task_id)
        return link

    @admin.display(description=pgettext_lazy("question", "asked"))
    def asked(self, row: Any) -> SafeString | str:
        """Return the beginning of what is asked."""
        return arguments_line(row.record.data) if row.sees else "-"

    @admin.display(description=pgettext_lazy("question", "asked"))
    def all_asked(self, row: Any) -> SafeString | str:
        """Return what is asked."""
        return block(row.record.data) if row.sees else format_html('<div class="help">{}</div>', HIDDEN)

    approve = _answer_action("approve", "Approve", _("Approve selected %(verbose_name_plural)s"))
    reject = _answer_action("reject", "Reject", _("Reject selected %(verbose_name_plural)s"))
    answer = _answer_action("answer", "Answer", _("Answer selected %(verbose_name_plural)s"))


@admin.register(Question)
class QuestionAdmin(QuestionAdminMixin, BaseAdmin):
    """The inbox: the open questions of tasks."""
