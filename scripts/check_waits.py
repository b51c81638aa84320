"""List the calls in the default test suite that wait for real time. Exit with 1 if there are any.

The script looks for `time.sleep(...)`, for `asyncio.sleep(n)` with a positive constant, and for timeouts below 30
seconds. Such calls make a test slow, or let it fail on a busy machine. Use the fixture `clock` instead, or move the
test to `tests/processes`. Functions whose names begin with `until` may sleep, because they return as soon as their
condition is true.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITE = (
    "tests/conformance",
    "tests/taskq_core",
    "tests/taskq_dashboard",
    "tests/taskq_django",
    "tests/taskq_exporter",
    "tests/taskq_fastapi",
    "tests/taskq_migrate",
    "tests/taskq_pydantic_ai",
    "tests/taskq_sqlalchemy",
    "tests/taskq_terminal",
)
LEAST_TIMEOUT_S = 30
"""Shortest allowed timeout. On a busy machine, any step may take nearly as long."""
TIMEOUTS = ("timeout", "within")
OPTIONS = ("aggregator", "django_task", "take", "using", "TaskOptions")
"""Functions whose argument `timeout` is an option of a task, so the test does not wait for it."""


def constant(node: ast.expr | None) -> float | None:
    """Return the value of a numeric literal, None for any other expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    return None


def waits(call: ast.Call) -> Iterator[str]:
    """Yield the problems of a call. A timeout of zero is allowed, because it does not wait."""
    name = ast.unparse(call.func)
    first = call.args[0] if call.args else None
    is_option = name.rpartition(".")[2] in OPTIONS
    timeouts = [each.value for each in call.keywords if each.arg in TIMEOUTS and not is_option]
    if name == "time.sleep" and constant(first) != 0:
        yield "sleeps"
    if name == "asyncio.sleep" and (constant(first) or 0) > 0:
        yield "sleeps"
    if name in ("asyncio.timeout", "pytest.mark.timeout"):
        timeouts.append(first or ast.Constant(None))
    if name.rpartition(".")[2] == "wait_for" and len(call.args) > 1:
        timeouts.append(call.args[1])
    if any(0 < (constant(each) or 0) < LEAST_TIMEOUT_S for each in timeouts):
        yield f"has a timeout below {LEAST_TIMEOUT_S} s"


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of a file, except those in functions whose names begin with `until`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.lstrip("_").startswith("until"):
            continue
        if isinstance(node, ast.Call):
            yield node
        yield from calls(node)


def main() -> int:
    """Print each wait with its file and line."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {problem}: {ast.unparse(node)[:100]}"
        for folder in SUITE
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in calls(ast.parse(path.read_text(encoding="utf-8")))
        for problem in waits(node)
    ]
    print("\n".join([*found, f"{len(found)} waits in the default suite; none are allowed"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
