"""Run actions on tasks: ask for the details and a confirmation, run the action, and show the result."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from taskq_core.cli.plugin import failure_text
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.inspector import ALLOWED_STATES, ActionReport, TaskAction, TaskFilter, TaskRef
from taskq_core.views import validate_queue_name
from taskq_core.views.labels import BUTTONS, Skipped, done, question, skipped
from taskq_core.views.messages import ALL_BUTTONS, outcome
from taskq_terminal.dialogs import Ask, Working
from taskq_terminal.filtering import duration_of
from taskq_terminal.screen import DashScreen, Level

PART_S = 0.3
"""Approximate duration in seconds of one step of an action on many tasks. The progress is shown after each step."""


async def act_on(screen: DashScreen[Any], refs: Sequence[TaskRef], action: TaskAction) -> ActionReport | None:
    """Run an action on tasks after a confirmation, and show the result. Return None if it was not run.

    Tasks whose state does not allow the action are skipped.
    """
    fit = [ref for ref in refs if ref.state in ALLOWED_STATES[action]]
    if not fit:
        if refs:
            states = sorted({str(ref.state) for ref in refs})
            they_are = f"it is {states[0]}" if len(refs) == 1 else f"they are {', '.join(states)}"
            screen.show_message(f"{BUTTONS[action]}: not while {they_are}.", "warning")
        return None
    more = f"\n{len(refs) - len(fit):,} more are skipped, because of their state." if len(fit) < len(refs) else ""
    names = [ref.id for ref in fit] if len(fit) > 1 else []
    options = await _options(screen, action, BUTTONS, _tasks_text(fit), len(fit), more=more, names=names)
    if options is None:
        return None
    if len(fit) > 1:
        screen.show_message(f"{BUTTONS[action]}: {_tasks_text(fit)}…")
    report = await screen.shared.inspector.act_on(fit, action, **options)
    _show(screen, *outcome(action, report), report)
    return report


async def act_on_all(screen: DashScreen[Any], action: TaskAction, wanted: TaskFilter, *, total: int) -> bool:
    """Run an action step by step on all listed tasks of a state after a confirmation, and show the result.

    Args:
        screen: The screen.
        action: The action.
        wanted: The filter, which has a state.
        total: Number of tasks to read.

    Returns:
        Whether the user started the action.
    """
    where = "all queues" if wanted.queue is None else f"the queue “{wanted.queue}”"
    if wanted.group is not None:
        where = f"the group “{wanted.group}” of {where}"
    fitting = f" that match the filter (of {total:,})" if wanted.needs_reading else ""
    whom = f"all {'' if fitting else f'{total:,} '}{wanted.state} tasks of {where}{fitting}"
    options = await _options(screen, action, ALL_BUTTONS, whom, 2)
    if options is None:
        return False
    await _in_parts(screen, action, wanted, options, total=total)
    return True


async def _options(
    screen: DashScreen[Any],
    action: TaskAction,
    buttons: dict[TaskAction, str],
    whom: str,
    count: int,
    *,
    more: str = "",
    names: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Ask for the options of an action and for a confirmation. Return None if the user cancels."""
    text = question(action, whom, count)
    options: dict[str, Any] = {}
    if action is TaskAction.RETRY:
        ask = Ask(text, hint="Delay, as 90s, 10m or 1h30m", parse=duration_of, value="10m")
        options["after"] = await screen.app.push_screen_wait(ask)
        text += f"\nFor {options['after']}."
    elif action is TaskAction.MOVE:
        queues = await screen.shared.inspector.queues()
        ask = Ask(text, hint=f"Target queue: {', '.join(queues[:20])}", parse=_queue_name, choices=queues)
        options["to_queue"] = await screen.app.push_screen_wait(ask)
        text += f"\nTo “{options['to_queue']}”."
    if None in options.values():
        return None
    is_destructive = action in (TaskAction.DELETE, TaskAction.CANCEL)
    is_wanted = await screen.ask(text + more, buttons[action], is_destructive=is_destructive, names=names)
    return options if is_wanted else None


async def _in_parts(
    screen: DashScreen[Any], action: TaskAction, wanted: TaskFilter, options: dict[str, Any], *, total: int
) -> None:
    working = Working(f"{ALL_BUTTONS[action]}…")
    await screen.app.push_screen(working)
    count = scanned = 0
    reasons: Skipped = Skipped()
    cursor: str | None = None
    report = ActionReport()
    try:
        while True:
            has_time = partial(_is_before, time.monotonic() + PART_S)
            part = await screen.shared.inspector.act_on_matching(
                wanted, action, **options, cursor=cursor, has_time=has_time
            )
            report, cursor = part.report, part.next
            count += len(report.done)
            scanned += part.scanned
            reasons += report.skipped
            if cursor is None or report.failure is not None or working.is_stopped:
                break
            working.show(f"{scanned:,} of {max(total, scanned):,} were read, {count:,} done")
    finally:
        working.dismiss(None)
    texts = [text for text in (done(action, count) if count else "", skipped(reasons)) if text]
    if cursor is not None and report.failure is None:
        texts.append(f"Stopped after {scanned:,} of {max(total, scanned):,}.")
    level = "success" if count and not reasons and cursor is None else "warning"
    _show(screen, level, " ".join(texts) or "There was nothing to do.", report)


def _is_before(until: float) -> bool:
    return time.monotonic() < until


def _show(screen: DashScreen[Any], level: str, text: str, report: ActionReport) -> None:
    levels: dict[str, Level] = {"success": "success", "error": "error"}
    if isinstance(report.failure, BrokerAuthenticationError):
        screen.show_failure(report.failure)
    elif report.failure is not None:
        screen.show_message(f"{text} {failure_text(report.failure)}", "error")
    else:
        screen.show_message(text, levels.get(level, "warning"))


def _tasks_text(refs: Sequence[TaskRef]) -> str:
    if len(refs) == 1:
        return f"the task “{refs[0].id}” of the queue “{refs[0].queue}”"
    queues = {ref.queue for ref in refs}
    where = f" of the queue “{refs[0].queue}”" if len(queues) == 1 else f" of {len(queues)} queues"
    return f"{len(refs):,} tasks{where}"


def _queue_name(text: str) -> str:
    validate_queue_name(text)
    return text
