"""The visible text of payloads and results."""

import json
from dataclasses import dataclass

from taskq_core import TaskInfo
from taskq_core.settings.language import gettext
from taskq_core.views.labels import not_stored
from taskq_core.views.payloads import LAID_OUT_BYTES
from taskq_fastapi.api.access import Shown

LISTED_BYTES = 16 * 1024
"""Maximum number of bytes of a payload or result in a list. Larger ones are not read."""
LISTED_CHARS = 200
"""Characters of a payload or result that a list shows, as in asynqmon."""
SHOWN_BYTES = 64 * 1024
"""Maximum number of bytes of a payload or result on the page of a task."""


@dataclass(frozen=True, slots=True)
class Blob:
    """The visible text of bytes.

    Attributes:
        text: The text, or "".
        note: A note about it, or "". `hidden` if the user may not see it.
    """

    text: str
    note: str = ""


NO_BLOB = Blob("")
"""The text of no bytes."""


def listed(shown: Shown, name: str, what: str, data: bytes) -> Blob:
    """Return the text of bytes in a list: the beginning, in one line."""
    blob = _read(shown, name, what, data, most=LISTED_BYTES, indent=None)
    text = " ".join(blob.text.split()) if "\n" in blob.text else blob.text
    return Blob(text if len(text) <= LISTED_CHARS else f"{text[: LISTED_CHARS - 1]}…", blob.note)


def whole(shown: Shown, name: str, what: str, data: bytes) -> Blob:
    """Return the text of bytes on their own page. JSON is indented."""
    return _read(shown, name, what, data, most=SHOWN_BYTES, indent=2)


def listed_result(shown: Shown, task: TaskInfo) -> Blob:
    """Return the text of the result of a task in a list."""
    return _oversized(task) or listed(shown, task.name, "result", task.result)


def whole_result(shown: Shown, task: TaskInfo) -> Blob:
    """Return the text of the result of a task on its own page."""
    return _oversized(task) or whole(shown, task.name, "result", task.result)


def _oversized(task: TaskInfo) -> Blob | None:
    return None if task.oversized_result is None else Blob("", not_stored(task.oversized_result))


def _read(shown: Shown, name: str, what: str, data: bytes, *, most: int, indent: int | None) -> Blob:
    found = shown.octets(name, what, data, most=most)
    match found.get("omitted"):
        case "hidden":
            return Blob("", "hidden" if data else "")
        case "large" if shown.may_ask_payloads:
            return Blob(data[:most].decode("utf-8", "replace"), first(most, len(data)))
        case "large":
            return Blob("", gettext("%(size)s bytes, too large to be shown here", size=f"{len(data):,}"))
    value = found["value"]
    if found["format"] == "json":
        return Blob(_laid_out(value, indent))
    text = value if isinstance(value, str) else _laid_out(value, indent)
    return Blob(text, gettext("not text: shown in base64") if found["format"] == "base64" else "")


def first(shown: int, size: int) -> str:
    """Return the note for bytes of which only the beginning is shown."""
    return gettext("The first %(shown)s of %(size)s bytes.", shown=f"{shown:,}", size=f"{size:,}")


def _laid_out(value: object, indent: int | None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if len(text) <= LAID_OUT_BYTES else json.dumps(value, ensure_ascii=False)
