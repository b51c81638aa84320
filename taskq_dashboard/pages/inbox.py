"""The inbox: the open questions of tasks, and the form that answers one."""

from typing import Any

from taskq_core import Question
from taskq_core.errors import TaskNotFoundError, TaskStateError
from taskq_core.settings.language import gettext, marked
from taskq_core.views import AnswerForm, answer_form
from taskq_core.views.labels import signal_question
from taskq_dashboard import registry
from taskq_dashboard.blobs import listed, whole
from taskq_dashboard.errors import BadRequestError, NotFoundError
from taskq_dashboard.form import Form
from taskq_dashboard.registry import Done, action, page
from taskq_dashboard.view import Shown, View

QUESTIONS_MAX = 200
"""Maximum number of questions on the page."""
PREFIX = "a."
"""The names of the fields of an answer begin with this."""


@page("inbox", label=marked("Inbox"))
async def show(view: View) -> Shown:
    """Show the open questions of all queues, the oldest first."""
    questions = await view.inspector.questions(limit=QUESTIONS_MAX)
    return view.page(
        "inbox.html", title=gettext("Inbox"), rows=[row_of(view, each) for each in questions], most=QUESTIONS_MAX
    )


def row_of(view: View, question: Question) -> dict[str, Any]:
    """Return a question with its visible data, and the buttons that answer it: their names and labels."""
    buttons = [(each, gettext(each)) for each in answer_form(question.answer_schema).buttons]
    asked = listed(view.shown, question.task, "payload", question.data)
    return {"question": question, "asked": asked, "buttons": buttons}


async def _question(view: View, form: Form) -> tuple[Question, AnswerForm, str]:
    """Return the open question that a form names, the form of its answer, and the pressed button."""
    number = form.number("number", 0, low=0, high=10**6)
    found = await view.inspector.questions(form.need("queue"), form.need("id"))
    question = next((each for each in found if each.number == number), None)
    if question is None:
        raise NotFoundError(gettext("This question was already answered, or the task no longer waits for an answer."))
    fields = answer_form(question.answer_schema)
    return question, fields, form.choice("do", fields.buttons) or fields.buttons[0]


async def ask_answer(view: View, form: Form) -> registry.Question:
    """Show what is asked, with the fields of the answer."""
    question, fields, button = await _question(view, form)
    return registry.Question(
        text=signal_question(button.lower(), question.task, question.name),
        button=gettext(button),
        template="question_answer.html",
        context={
            "asked": whole(view.shown, question.task, "payload", question.data),
            "fields": fields.fields,
            "prefix": PREFIX,
        },
    )


@action("task-answer", ask=ask_answer, audited=("queue", "id", "number", "do"))
async def answer(view: View, form: Form) -> Done:
    """Answer a question that is still open."""
    question, fields, button = await _question(view, form)
    texts = {each.name: form.get(PREFIX + each.name) for each in fields.fields}
    try:
        await view.inspector.answer_task(
            question.queue,
            question.task_id,
            question.number,
            fields.read(button, texts),
            by=view.user.name,
            generation=form.get("generation") or question.generation,
        )
    except (TaskNotFoundError, TaskStateError):
        view.audited["refused"] = "the question is not open"
        raise BadRequestError(
            gettext("This question was already answered, or the task no longer waits for an answer.")
        ) from None
    return Done(text=gettext("The question “%(name)s” was answered.", name=question.name))
