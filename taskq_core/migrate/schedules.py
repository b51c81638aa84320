"""Celery's schedules as the specs of taskq's periodic tasks.

A cron line that limits both the day of the month and the day of the week fires when either matches. Celery fires when
both match, so such a crontab is refused.
"""

import ast
import re

from taskq_core.migrate.source import CannotTranslateError

_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
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
    """Return the spec of a schedule: seconds, `timedelta`, `schedule(...)` or `crontab(...)`.

    Raises:
        CannotTranslateError: It has none.
    """
    node = _parsed(text)
    if isinstance(node, ast.Call) and _name(node.func) == "schedule":
        wanted = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "run_every")]
        if len(wanted) != 1 or len(node.args) + len(node.keywords) != 1:
            raise CannotTranslateError("only schedule(run_every) is known")
        node = wanted[0]
    every = _seconds(node)
    if every is not None:
        if every < 1:
            raise CannotTranslateError("an interval has to be a second or more")
        return f"@every {every:g}s" if every < 1e6 else f"@every {int(every)}s"
    if isinstance(node, ast.Call) and _name(node.func) == "crontab":
        return _cron(node)
    raise CannotTranslateError("the schedule is not a number, timedelta(...) or crontab(...)")


def _cron(call: ast.Call) -> str:
    fields = dict.fromkeys(_FIELDS, "*")
    order = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    if len(call.args) > len(order):
        raise CannotTranslateError("crontab takes five fields")
    for name, value in [*zip(order, call.args, strict=False), *((each.arg, each.value) for each in call.keywords)]:
        if name not in fields:
            raise CannotTranslateError(
                f"crontab({name or '**'}=) has no equivalent; give the entry a time zone with tz"
            )
        fields[name] = _field(name, value)
    if fields["day_of_month"] != "*" and fields["day_of_week"] != "*":
        raise CannotTranslateError(
            "it limits the day of the month and the day of the week, "
            "and Celery fires when both match, a cron line when one does"
        )
    return " ".join(fields[name] for name in _FIELDS)


def _field(name: str, node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        text = str(node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value.replace(" ", "").lower()
    elif isinstance(node, ast.List | ast.Tuple | ast.Set) and node.elts:
        text = ",".join(_field(name, each) for each in node.elts)
    else:
        raise CannotTranslateError(f"crontab({name}=) is not written out")
    return ",".join(_range(name, each) for each in text.split(","))


def _range(name: str, text: str) -> str:
    match = re.fullmatch(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?P<step>/[1-9][0-9]*)?", text)
    if match is None or (match["step"] and match["first"] != "*" and not match["last"]):
        raise CannotTranslateError(f"crontab({name}={text!r}) is not known")
    first, last = _value(name, match["first"]), match["last"] and _value(name, match["last"])
    if last is not None and first.isdigit() and last.isdigit() and int(first) > int(last):
        raise CannotTranslateError(f"crontab({name}={text!r}) runs backward, which a cron line cannot")
    return f"{first}{f'-{last}' if last is not None else ''}{match['step'] or ''}"


def _value(name: str, text: str) -> str:
    if text == "*":
        return text
    if text.isdigit():
        return "0" if name == "day_of_week" and text == "7" else str(int(text))
    names = {"day_of_week": _DAYS, "month_of_year": _MONTHS}.get(name, ())
    if text[:3] in names and len(text) >= 3:
        return str(names.index(text[:3]) + (name == "month_of_year"))
    raise CannotTranslateError(f"crontab({name}={text!r}) is not known")


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""
