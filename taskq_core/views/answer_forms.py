"""The form that answers a question, from the JSON schema of the answer.

A bool, or an object with the bool `approved`, gets the buttons "Approve" and "Reject". Text, numbers, enums and objects
of these get a field for each value. Everything else is answered as JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from taskq_core.codec import Schema
from taskq_core.errors import StepError
from taskq_core.settings.language import marked

APPROVE, REJECT, ANSWER = marked("Approve"), marked("Reject"), marked("Answer")
_KINDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "checkbox"}
_WHOLE = "value"
"""Name of the field that is the whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerField:
    """One field of the form.

    Attributes:
        name: Name of the field.
        label: Label, such as the name of the property.
        kind: text, integer, number, checkbox, choice or json.
        choices: For a choice: each value as JSON and as text.
        is_required: Whether the field needs a value.
        initial: Text of the field at first.
    """

    name: str
    label: str
    kind: str
    choices: Sequence[tuple[str, str]] = ()
    is_required: bool = True
    initial: str = ""

    def read(self, text: str) -> Any:
        """Return the value for the text in the field.

        Raises:
            StepError: The text does not have the form of the kind.
        """
        try:
            match self.kind:
                case "integer":
                    return int(text)
                case "number":
                    return float(text)
                case "choice" | "json":
                    return msgspec.json.decode(text)
        except (ValueError, RecursionError):
            raise StepError(f"{self.label or self.name}: this is no {self.kind}") from None
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """The form that answers a question.

    Attributes:
        buttons: English labels of its buttons: APPROVE and REJECT, or ANSWER.
        fields: Its fields.
    """

    buttons: Sequence[str]
    fields: Sequence[AnswerField]

    def read(self, button: str, texts: Mapping[str, str]) -> Any:
        """Return the answer for a pressed button and the texts in the fields, by the name of the field.

        Raises:
            StepError: A text does not have the form of its field, or there is no such button.
        """
        if button not in self.buttons:
            raise StepError(f"the button must be one of {', '.join(self.buttons)}, got {button!r:.100}")
        values: dict[str, Any] = {}
        for field in self.fields:
            text = texts.get(field.name, "")
            if field.kind == "checkbox":
                values[field.name] = bool(text)
            elif text or (field.is_required and field.kind == "text"):
                values[field.name] = field.read(text)
            elif field.is_required:
                raise StepError(f"{field.label or field.name}: a value is missing")
        if button == ANSWER:
            return values[_WHOLE] if [each.label for each in self.fields] == [""] else values
        is_approved = button == APPROVE
        return {"approved": is_approved, **values} if self.fields else is_approved


def answer_form(schema: Schema) -> AnswerForm:
    """Return the form for a schema."""
    root = _resolved(schema, schema)
    if root.get("type") == "boolean":
        return AnswerForm(buttons=(APPROVE, REJECT), fields=())
    whole = _field(schema, root, _WHOLE, "")
    if whole is not None:
        return AnswerForm(buttons=(ANSWER,), fields=(whole,))
    properties = root.get("properties")
    if isinstance(properties, dict) and properties:
        required = root.get("required", ())
        fields = [_field(schema, each, name, name, name in required) for name, each in properties.items()]
        if None not in fields:
            shown = [each for each in fields if each is not None]
            others = [each for each in shown if (each.name, each.kind) != ("approved", "checkbox")]
            buttons = (ANSWER,) if len(others) == len(shown) else (APPROVE, REJECT)
            return AnswerForm(buttons=buttons, fields=others)
    return AnswerForm(buttons=(ANSWER,), fields=(AnswerField(name=_WHOLE, label="", kind="json", initial="null"),))


def _resolved(root: Schema, schema: Any) -> Schema:
    """Follow references to definitions of the same schema."""
    for _ in range(9):
        name = schema.get("$ref", "") if isinstance(schema, dict) else ""
        if not isinstance(name, str) or not name.startswith("#/$defs/"):
            break
        schema = root.get("$defs", {}).get(name.removeprefix("#/$defs/"), {})
    return schema if isinstance(schema, dict) else {}


def _field(root: Schema, schema: Any, name: str, label: str, is_required: bool = True) -> AnswerField | None:
    """Return the field for a flat type, None for other types."""
    found = _resolved(root, schema)
    either = found.get("anyOf")
    if isinstance(either, list):
        some = [each for each in either if each != {"type": "null"}]
        if len(some) != 1:
            return None
        found, is_required = _resolved(root, some[0]), False
    choices = found.get("enum", [found["const"]] if "const" in found else None)
    if isinstance(choices, list):
        pairs = [(json.dumps(each), str(each)) for each in choices]
        return AnswerField(name=name, label=label, kind="choice", choices=pairs, is_required=is_required)
    kind = _KINDS.get(str(found.get("type")))
    if kind is None:
        return None
    default = found.get("default", schema.get("default") if isinstance(schema, dict) else None)
    initial = "" if default in (None, False) else str(default)
    return AnswerField(name=name, label=label, kind=kind, is_required=is_required, initial=initial)
