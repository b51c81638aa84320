"""Generate the page about the JSON API from the API's OpenAPI document."""

from typing import Any

from fastapi import FastAPI

from taskq_core import TaskQ
from taskq_fastapi import taskq_router

_METHODS = ("get", "post", "put", "patch", "delete")


def description() -> dict[str, Any]:
    """Return the OpenAPI document of the JSON API, mounted at /taskq."""
    app = FastAPI(title="taskq")
    app.include_router(taskq_router(TaskQ(), allow_anonymous=True), prefix="/taskq")
    return app.openapi()


def page() -> str:
    """Return the page in Markdown."""
    document = description()
    lines = [
        "# HTTP API",
        "",
        "Every route of the [JSON API](../how-to/serve-the-json-api.md), mounted at `/taskq`, from the description "
        "that it serves at `/openapi.json`.",
        "",
    ]
    for path, verbs in document["paths"].items():
        for verb in _METHODS:
            if verb in verbs:
                lines += _route(path, verb, verbs[verb])
    lines += ["## Records", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _record(name, schema)
    return "\n".join(lines)


def _route(path: str, verb: str, route: dict[str, Any]) -> list[str]:
    lines = [f"## {verb.upper()} `{path}`", ""]
    text = route.get("description") or route.get("summary") or ""
    lines += [text.strip(), ""]
    parameters = route.get("parameters", [])
    if parameters:
        lines += ["| parameter | in | type | meaning |", "|---|---|---|---|"]
        for each in parameters:
            kind = _type(each["schema"]) + ("" if each.get("required") else "; optional")
            lines.append(f"| `{each['name']}` | {each['in']} | {kind} | {_cell(each.get('description', ''))} |")
        lines.append("")
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        lines += [f"Takes {_type(body)}.", ""]
    lines += ["| status | answers | |", "|---|---|---|"]
    for status, answer in route["responses"].items():
        content = answer.get("content", {})
        kinds = ", ".join(
            _type(each["schema"]) if each.get("schema") and kind.endswith("json") else f"`{kind}`"
            for kind, each in content.items()
        )
        lines.append(f"| {status} | {kinds} | {_cell(answer.get('description', ''))} |")
    return [*lines, ""]


def _record(name: str, schema: dict[str, Any]) -> list[str]:
    lines = [f"### {name}", ""]
    if schema.get("description"):
        lines += [schema["description"].strip(), ""]
    if "enum" in schema:
        return [*lines, "One of " + ", ".join(f"`{each}`" for each in schema["enum"]) + ".", ""]
    properties = schema.get("properties", {})
    if properties:
        must = set(schema.get("required", ()))
        lines += ["| field | type | meaning |", "|---|---|---|"]
        for field, each in properties.items():
            optional = "" if field in must else "; optional"
            lines.append(f"| `{field}` | {_type(each)}{optional} | {_cell(each.get('description', ''))} |")
        lines.append("")
    return lines


def _type(schema: dict[str, Any]) -> str:
    """Return a type as text. The name of a record is a link to its section."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[key]))
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "null":
        return "`null`"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}
    text = str(words.get(kind, kind))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        text += f", {low if low is not None else ''} to {high if high is not None else ''}".rstrip()
    if schema.get("format"):
        text += f" ({schema['format']})"
    return text


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
