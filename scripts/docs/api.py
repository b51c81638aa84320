"""Generate the pages of the Python API from signatures and docstrings.

griffe reads the source without running it. The page of a module shows the names in its `__all__` in this order:
functions, classes with their members, errors. A class also shows the members of its bases, unless the bases are on the
same page.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import griffe

MODULES = (
    "taskq_core",
    "taskq_core.workflow",
    "taskq_core.inspector",
    "taskq_core.cli.plugin",
    "taskq_core.worker",
    "taskq_core.scheduler",
    "taskq_core.tasks.middleware",
    "taskq_core.testing",
    "taskq_core.service.health",
    "taskq_core.service.health_server",
    "taskq_django",
    "taskq_django.signals",
    "taskq_django.testing",
    "taskq_fastapi",
    "taskq_dashboard",
    "taskq_exporter",
    "taskq_exporter.django",
    "taskq_exporter.fastapi",
    "taskq_pydantic_ai",
    "taskq_sqlalchemy",
)
_SPOKEN = ("__call__", "__len__", "__getitem__", "__iter__", "__or__")


def pages(root: Path) -> dict[str, str]:
    """Return the pages in Markdown by their path in the documentation."""
    loader = griffe.GriffeLoader(search_paths=[root], docstring_parser=griffe.Parser.google)
    for package in dict.fromkeys(name.partition(".")[0] for name in MODULES):
        loader.load(package)
    loader.resolve_aliases(external=False)
    return {f"reference/api/{name}.md": _module(loader.modules_collection[name], name) for name in MODULES}


def _module(module: Any, name: str) -> str:
    lines = [f"# `{name}`", "", *_docstring(module)]
    slugs = _Slugs()
    slugs.take(name)
    things = {each: _target(module, each) for each in _promised(module)}
    things = {each: thing for each, thing in things.items() if thing is not None}
    rows, body = [], []
    for each, thing in things.items():
        rows.append(f"| [`{each}`](#{slugs.take(each)}) | {_cell(_first(thing))} |")
        body += _thing(each, thing, slugs, promised=things)
    return "\n".join([*lines, "| name | |", "|---|---|", *rows, "", *body])


class _Slugs:
    """Assign anchors to headings in order. A repeated name gets a number."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def take(self, heading: str) -> str:
        slug = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        number = self._seen[slug] = self._seen.get(slug, -1) + 1
        return f"{slug}-{number}" if number else slug


def _promised(module: Any) -> list[str]:
    exported = module.exports
    if exported:
        return [str(getattr(each, "name", each)) for each in exported]
    return [
        name
        for name, each in module.members.items()
        if not name.startswith("_") and not each.is_alias and (each.is_class or each.is_function or each.is_attribute)
    ]


def _target(module: Any, name: str) -> Any:
    thing = module.members.get(name)
    if thing is None:
        return None
    return thing.final_target if thing.is_alias else thing


def _first(thing: Any) -> str:
    return thing.docstring.value.strip().partition("\n\n")[0] if thing.docstring else ""


def _thing(name: str, thing: Any, slugs: _Slugs, *, promised: Mapping[str, Any]) -> list[str]:
    lines = [f"## `{name}`", ""]
    if thing.is_class:
        bases = ", ".join(str(each) for each in thing.bases)
        parameters = thing.members.get("__init__")
        head = f"class {name}" + (f"({bases})" if bases else "")
        lines += _code(_signature(name, parameters, skip_first=True) if parameters is not None else head)
        if parameters is not None and bases:
            lines += [f"A `{bases}`.", ""]
    elif thing.is_function:
        lines += _code(_signature(name, thing))
    elif thing.is_attribute:
        value = f" = {thing.value}" if thing.value is not None else ""
        annotation = f": {thing.annotation}" if thing.annotation is not None else ""
        lines += _code(f"{name}{annotation}{value}")
    lines += _docstring(thing)
    if thing.is_class:
        for member_name, member in _members(thing, promised).items():
            if (member_name.startswith("_") and member_name not in _SPOKEN) or member.is_alias:
                continue
            lines += _member(name, member_name, member, slugs)
    return lines


def _members(thing: Any, promised: Mapping[str, Any]) -> dict[str, Any]:
    bases = thing.mro()
    documented = {each.path for base in bases if base.name in promised for each in (base, *base.mro())}
    members = dict(thing.members)
    for base in bases:
        if base.path not in documented:
            members |= {name: base.members[name] for name in base.members if name not in members}
    return members


def _member(owner: str, name: str, member: Any, slugs: _Slugs) -> list[str]:
    if not (member.is_function or member.is_attribute) or (member.docstring is None and not member.is_attribute):
        return []
    slugs.take(f"{owner}.{name}")
    lines = [f"### `{owner}.{name}`", ""]
    if member.is_function:
        lines += _code(_signature(name, member, skip_first="staticmethod" not in member.labels))
    else:
        annotation = f": {member.annotation}" if member.annotation is not None else ""
        value = f" = {member.value}" if member.value is not None and "property" not in member.labels else ""
        lines += _code(f"{name}{annotation}{value}")
    return lines + _docstring(member)


def _signature(name: str, function: Any, *, skip_first: bool = False) -> str:
    parts = []
    star = False
    parameters = list(function.parameters)[1 if skip_first else 0 :]
    for each in parameters:
        kind = each.kind.value if each.kind is not None else ""
        text = each.name
        if kind == "variadic positional":
            text, star = f"*{text}", True
        elif kind == "variadic keyword":
            text = f"**{text}"
        elif kind == "keyword-only" and not star:
            parts.append("*")
            star = True
        if each.annotation is not None:
            text += f": {each.annotation}"
        if each.default is not None and not kind.startswith("variadic"):
            text += f" = {each.default}" if each.annotation is not None else f"={each.default}"
        parts.append(text)
    returns = f" -> {function.returns}" if getattr(function, "returns", None) is not None and name != "__init__" else ""
    prefix = "async def " if "async" in function.labels else ""
    line = f"{prefix}{name}({', '.join(parts)}){returns}"
    if len(line) <= 96:
        return line
    inner = "".join(f"    {part},\n" for part in parts)
    return f"{prefix}{name}(\n{inner}){returns}"


def _code(text: str) -> list[str]:
    return ["```python", text, "```", ""]


def _docstring(thing: Any) -> list[str]:
    if thing.docstring is None:
        return []
    lines: list[str] = []
    for section in thing.docstring.parse("google", warnings=False):
        kind = section.kind.value
        if kind == "text":
            lines += [_prose(section.value), ""]
        elif kind in ("parameters", "other parameters", "attributes"):
            title = {"parameters": "argument", "attributes": "attribute"}.get(kind, "argument")
            lines += [f"| {title} | meaning |", "|---|---|"]
            lines += [f"| `{each.name}` | {_cell(each.description)} |" for each in section.value]
            lines.append("")
        elif kind == "raises":
            lines += ["| raises | when |", "|---|---|"]
            lines += [f"| `{each.annotation}` | {_cell(each.description)} |" for each in section.value]
            lines.append("")
        elif kind in ("returns", "yields"):
            word = "Returns" if kind == "returns" else "Yields"
            lines += [f"**{word}:** {_prose(each.description)}\n" for each in section.value]
        elif kind == "admonition":
            lines += [f"**{section.title}:** {_prose(section.value.description)}", ""]
        elif kind == "examples":
            lines += [*(value for _, value in section.value), ""]
    return lines


def _prose(text: str) -> str:
    """Return prose of a docstring in Markdown: blocks behind `::` become code, `:class:` roles names."""
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
    text = text.replace("``", "`")
    return re.sub(r"::\s*$", ":", text, flags=re.MULTILINE)


def _cell(text: str) -> str:
    return " ".join(_prose(text).replace("|", "\\|").split())
