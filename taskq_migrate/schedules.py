"""Translate Celery's schedules into schedule specs of taskq.

If a cron line limits both the day of the month and the day of the week, it fires when either of them matches. Celery
fires when both match, so such a crontab cannot be translated.
"""

import ast
import re

from taskq_core.cli.plugin import parse_schedule
from taskq_migrate.source import CannotTranslateError

_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_UNITS = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1, "milliseconds": 0.001}


def seconds_of(text: str) -> float | None:
    """Return the seconds of a number or of `timedelta(...)` with numbers, None for anything else."""
    return _seconds(_parsed(text))


def _parsed(text: str) -> ast.expr:
    return ast.parse(f"({text}\n)", mode="eval").body


def _seconds(node: ast.expr) -> float | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _seconds(node.left), _seconds(node.right)
        return None if left is None or right is None else left * right
    if isinstance(node, ast.Call) and _name(node.func) == "timedelta":
        total = 0.0
        given: list[tuple[str | None, ast.expr]] = list(zip(("days", "seconds"), node.args, strict=False))
        if len(node.args) > len(given):
            return None
        for unit, value in [*given, *((each.arg, each.value) for each in node.keywords)]:
            number = _seconds(value)
            if unit not in _UNITS or number is None:
                return None
            total += number * _UNITS[unit]
        return total
    return None


def spec_of(text: str) -> str:
    """Return taskq's spec of a Celery schedule: a number of seconds, `timedelta`, `schedule(...)` or `crontab(...)`.

    Raises:
        CannotTranslateError: The schedule has no equivalent.
    """
    node = _parsed(text)
    if isinstance(node, ast.Call) and _name(node.func) == "schedule":
        wanted = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "run_every")]
        if len(wanted) != 1 or len(node.args) + len(node.keywords) != 1:
            raise CannotTranslateError("schedule() must have one argument, run_every")
        node = wanted[0]
    every = _seconds(node)
    if every is not None:
        if every < 1:
            raise CannotTranslateError("an interval must be at least one second")
        return f"@every {every:g}s" if every < 1e6 else f"@every {int(every)}s"
    if isinstance(node, ast.Call) and _name(node.func) == "crontab":
        return _cron(node)
    raise CannotTranslateError("the schedule is not a number, timedelta(...) or crontab(...)")


def _cron(call: ast.Call) -> str:
    fields = dict.fromkeys(_FIELDS, "*")
    order = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    if len(call.args) > len(order):
        raise CannotTranslateError("crontab() has more than five arguments")
    for name, value in [*zip(order, call.args, strict=False), *((each.arg, each.value) for each in call.keywords)]:
        if name not in fields:
            raise CannotTranslateError(
                f"crontab({name or '**'}=) has no equivalent; set the time zone of the entry with tz"
            )
        fields[name] = _field(name, value)
    if fields["day_of_month"] != "*" and fields["day_of_week"] != "*":
        raise CannotTranslateError(
            "the crontab limits the day of the month and the day of the week: "
            "Celery fires when both match, taskq when either does"
        )
    spec = " ".join(fields[name] for name in _FIELDS)
    try:
        parse_schedule(spec)
    except ValueError as error:
        raise CannotTranslateError(f"crontab: {error}") from None
    return spec


def _field(name: str, node: ast.expr) -> str:
    if isinstance(node, ast.List | ast.Tuple | ast.Set) and node.elts:
        return ",".join(_field(name, each) for each in node.elts)
    value = node.value if isinstance(node, ast.Constant) else None
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise CannotTranslateError(f"crontab({name}=) is not a literal")
    text = re.sub(r"[a-z]{3,}", lambda word: word[0][:3], str(value).replace(" ", "").lower())  # "sunday" becomes "sun"
    return re.sub(r"\b7\b", "0", text) if name == "day_of_week" else text


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""
