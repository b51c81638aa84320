"""Write the public API to a file: the names, signatures, fields and members in the source.

    python scripts/public_api.py            print it
    python scripts/public_api.py --write    write it to tests/golden/public_api.json

A test compares the file with the code, so that no public name changes unnoticed. The script reads the source instead of
the imported objects, because Python versions differ in how they show an annotation.
"""

import argparse
import ast
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "tests" / "golden" / "public_api.json"
ROOMS = {
    "taskq_core": None,
    "taskq_core.cli.plugin": None,
    "taskq_core.inspector": None,
    "taskq_core.testing": None,
    "taskq_core.workflow": None,
}
"""Public modules, each with its public names. None: all names of its `__all__`."""
_SPOKEN = ("__init__", "__call__", "__len__", "__getitem__")


def describe_all() -> dict[str, Any]:
    """Return the public API by module and name."""
    found: dict[str, Any] = {}
    for room, names in ROOMS.items():
        module = importlib.import_module(room)
        found[room] = {name: describe(getattr(module, name)) for name in sorted(names or module.__all__)}
    return found


def describe(thing: Any) -> Any:
    """Return the public parts of a class or function: bases and members, or the signature. For a constant, its type."""
    if inspect.isclass(thing):
        members: dict[str, Any] = {}
        ours = [each for each in reversed(thing.__mro__) if each.__module__.partition(".")[0] == "taskq_core"]
        for each in ours:
            members.update(_members(_definition(each)))
        return {"bases": [each.__name__ for each in thing.__bases__], "members": dict(sorted(members.items()))}
    if not inspect.isfunction(thing):
        return {"type": type(thing).__name__}
    node = _definition(thing)
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return _signature(node)


def _definition(thing: Any) -> ast.AST:
    file = Path(inspect.getfile(inspect.unwrap(thing)))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in file.parent.glob("*.py") if file.name == "__init__.py" else [file]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, kinds) and node.name == thing.__name__:
                return node
    raise LookupError(f"{thing!r} is not defined at the top of its module")


def _members(definition: ast.AST) -> dict[str, Any]:
    assert isinstance(definition, ast.ClassDef)
    members: dict[str, Any] = {}
    overloads: dict[str, list[str]] = {}
    for node in definition.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_") and node.name not in _SPOKEN:
                continue
            decorators = [ast.unparse(each) for each in node.decorator_list]
            if "overload" in decorators:
                overloads.setdefault(node.name, []).append(_signature(node))
            elif node.name not in overloads:
                members[node.name] = " ".join([*(f"@{each}" for each in decorators), _signature(node)])
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if not node.target.id.startswith("_"):
                default = "" if node.value is None else f" = {ast.unparse(node.value)}"
                members[node.target.id] = ast.unparse(node.annotation) + default
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and not target.id.startswith("_"):
                    members[target.id] = ast.unparse(node.value)
    return {**members, **overloads}


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    return f"{kind} ({ast.unparse(node.args)}){returns}"


def text() -> str:
    """Return the public API in the format of the file."""
    return json.dumps(describe_all(), indent=2) + "\n"


def main() -> None:
    """Print or write the public API."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write it to {FILE.relative_to(ROOT)}")
    if parser.parse_args().write:
        FILE.write_text(text())
    else:
        sys.stdout.write(text())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
