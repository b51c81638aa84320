"""Run actions on tasks: ask for the details and a confirmation, run the action, and show the result."""

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from taskq_core.cli.base import failure_text
from taskq_core.cli.terminal.dialogs import Ask, Choose, Question, Working
from taskq_core.cli.terminal.filtering import duration_of
from taskq_core.cli.terminal.screen import DashScreen, Level
from taskq_core.errors import BrokerAuthenticationError, ConfigurationError
from taskq_core.inspector import ALLOWED_STATES, ActionReport, TaskAction, TaskFilter, TaskRef
from taskq_core.views.labels import Skipped, done, skipped
from taskq_core.views.messages import ALL_BUTTONS, BUTTONS, actions_for, outcome, question
from taskq_core.wire import validate_queue_name

PART_S = 0.3
"""Approximate duration of one step of an action on many tasks."""
_LOSES = (TaskAction.DELETE, TaskAction.CANCEL)


def whom(refs: Sequence[TaskRef]) -> str:
    """Return a description of tasks."""
    if len(refs) == 1:
        return f"the task “{refs[0].id}” of the queue “{refs[0].queue}”"
    queues = {ref.queue for ref in refs}
    where = f" of the queue “{refs[0].queue}”" if len(queues) == 1 else f" of {len(queues)} queues"
    return f"{len(refs):,} tasks{where}"


async def act_on(screen: DashScreen[Any], refs: Sequence[TaskRef], action: TaskAction) -> ActionReport | None:
    """Run an action on tasks after a confirmation, and show the result. Return None if it was not run.

    Tasks whose state does not allow the action are skipped.
    """
    states = ALLOWED_STATES[action]
    fit = [ref for ref in refs if ref.state in states]
    if not fit:
        if refs:
            screen.say(f"{BUTTONS[action]}: not while {_they_are(refs)}.", "warning")
        return None
    options = await _options(screen, action, question(action, whom(fit), len(fit)))
    if options is None:
        return None
    text = question(action, whom(fit), len(fit)) + _detail(options)
    if len(fit) < len(refs):
        text += f"\n{len(refs) - len(fit):,} more are skipped, because of their state."
    names = [ref.id for ref in fit] if len(fit) > 1 else []
    asked = Question(text=text, button=BUTTONS[action], is_destructive=action in _LOSES, names=names)
    if not await screen.ask(asked):
        return None
    if len(fit) > 1:
        screen.say(f"{BUTTONS[action]}: {whom(fit)}…")
    report = await screen.poller.inspector.act_on(fit, action, **options)
    if action is TaskAction.CANCEL:
        for ref in report.done:
            screen.poller.cancelling(ref.queue, ref.id)
    level, told = outcome(action, report)
    _show(screen, level, told, report)
    return report


async def act_on_all(screen: DashScreen[Any], wanted: TaskFilter, *, total: int) -> bool:
    """Ask for an action, run it step by step on all listed tasks of a state, and show the result.

    Args:
        screen: The screen.
        wanted: The filter, which has a state.
        total: Number of tasks to read.

    Returns:
        Whether the action was started.
    """
    state = wanted.state
    assert state is not None
    where = "all queues" if wanted.queue is None else f"the queue “{wanted.queue}”"
    if wanted.group is not None:
        where = f"the group “{wanted.group}” of {where}"
    fitting = f" that match the filter (of {total:,})" if wanted.looks_inside else ""
    count = "" if wanted.looks_inside else f"{total:,} "
    meant = f"all {count}{state} tasks of {where}{fitting}"
    choices = [(action.value, ALL_BUTTONS[action]) for action, _ in actions_for(state)]
    chosen = await screen.app.push_screen_wait(Choose(f"Action for {meant}:", choices))
    if chosen is None:
        return False
    action = TaskAction(chosen)
    text = question(action, meant, 2)
    options = await _options(screen, action, text)
    if options is None:
        return False
    asked = Question(text=text + _detail(options), button=ALL_BUTTONS[action], is_destructive=action in _LOSES)
    if not await screen.ask(asked):
        return False
    await _in_parts(screen, wanted, action, options, total=total)
    return True


async def _in_parts(
    screen: DashScreen[Any], wanted: TaskFilter, action: TaskAction, options: dict[str, Any], *, total: int
) -> None:
    working = Working(f"{ALL_BUTTONS[action]}…")
    await screen.app.push_screen(working)
    count = scanned = 0
    reasons: Skipped = Skipped()
    cursor: str | None = None
    report = ActionReport()
    try:
        while True:
            until = time.monotonic() + PART_S
            part = await screen.poller.inspector.act_on_matching(
                wanted, action, **options, cursor=cursor, has_time=partial(_is_before, until)
            )
            report = part.report
            count += len(report.done)
            scanned += part.scanned
            reasons += report.skipped
            cursor = part.next
            if action is TaskAction.CANCEL:
                for ref in report.done:
                    screen.poller.cancelling(ref.queue, ref.id)
            if cursor is None or report.failure is not None or working.is_stopped:
                break
            working.show(f"{scanned:,} of {max(total, scanned):,} were read, {count:,} done")
    finally:
        working.dismiss(None)
    texts = [text for text in (done(action, count) if count else "", skipped(reasons)) if text]
    if cursor is not None and report.failure is None:
        texts.append(f"Stopped after {scanned:,} of {max(total, scanned):,}.")
    level: Level = "success" if count and not reasons and cursor is None else "warning"
    _show(screen, level, " ".join(texts) or "There was nothing to do.", report)


def _is_before(until: float) -> bool:
    return time.monotonic() < until


def _show(screen: DashScreen[Any], level: str, text: str, report: ActionReport) -> None:
    if report.failure is None:
        screen.say(text, "error" if level == "error" else "success" if level == "success" else "warning")
        return
    if isinstance(report.failure, BrokerAuthenticationError):
        screen.show_failure(report.failure)
        return
    screen.say(f"{text} {failure_text(report.failure)}", "error")


async def _options(screen: DashScreen[Any], action: TaskAction, title: str) -> dict[str, Any] | None:
    """Ask for the options of an action; None if the user cancels."""
    if action is TaskAction.RETRY:
        answer = await screen.app.push_screen_wait(
            Ask(title, hint="Delay, as 90s, 10m or 1h30m", check=_wrong_duration, value="10m")
        )
        return None if answer is None else {"after": duration_of(answer)}
    if action is TaskAction.MOVE:
        queues = await screen.poller.inspector.queues()
        answer = await screen.app.push_screen_wait(
            Ask(title, hint=f"Target queue: {', '.join(queues[:20])}", check=_wrong_queue, choices=queues)
        )
        return None if answer is None else {"to_queue": answer.strip()}
    return {}


def _detail(options: dict[str, Any]) -> str:
    after: timedelta | None = options.get("after")
    if after is not None:
        return f"\nFor {after}."
    return f"\nTo “{options['to_queue']}”." if "to_queue" in options else ""


def _wrong_duration(text: str) -> str:
    try:
        duration_of(text)
    except ConfigurationError as error:
        return str(error)
    return ""


def _wrong_queue(text: str) -> str:
    try:
        validate_queue_name(text.strip())
    except ConfigurationError as error:
        return str(error)
    return ""


def _they_are(refs: Sequence[TaskRef]) -> str:
    states = sorted({str(ref.state) for ref in refs})
    return f"it is {states[0]}" if len(refs) == 1 else f"they are {', '.join(states)}"
