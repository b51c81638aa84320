"""The visible text of payloads and results."""

import json
from collections.abc import Callable
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
    """The visible text of a payload or result.

    Attributes:
        text: The text, or "".
        note: A note about it, or "". `hidden` if the user may not see it.
    """

    text: str
    note: str = ""


NO_BLOB = Blob("")
"""The visible text of an empty payload or result."""


def listed(shown: Shown, name: str, what: str, data: bytes) -> Blob:
    """Return the text of a payload or result for a list: its beginning, in one line."""
    blob = _read(shown, name, what, data, most=LISTED_BYTES, indent=None)
    text = " ".join(blob.text.split()) if "\n" in blob.text else blob.text
    return Blob(text if len(text) <= LISTED_CHARS else f"{text[: LISTED_CHARS - 1]}…", blob.note)


def whole(shown: Shown, name: str, what: str, data: bytes, *, size: int | None = None) -> Blob:
    """Return the text of a payload or result for the page of a task, with JSON indented. `size` is its full size."""
    return _read(shown, name, what, data, most=SHOWN_BYTES, indent=2, size=size)


def result_of(show: Callable[[Shown, str, str, bytes], Blob], shown: Shown, task: TaskInfo) -> Blob:
    """Return the text of the result of a task, as `listed` or `whole` shows it."""
    if task.oversized_result is not None:
        return Blob("", not_stored(task.oversized_result))
    return show(shown, task.name, "result", task.result)


def _read(
    shown: Shown, name: str, what: str, data: bytes, *, most: int, indent: int | None, size: int | None = None
) -> Blob:
    found = shown.octets(name, what, data, most=most, size=size)
    all_bytes = f"{found['size']:,}"
    match found.get("omitted"):
        case "hidden":
            return Blob("", "hidden" if found["size"] else "")
        case "large" if shown.may_ask_payloads:
            part = data[:most]
            first = gettext("The first %(shown)s of %(size)s bytes.", shown=f"{len(part):,}", size=all_bytes)
            return Blob(part.decode("utf-8", "replace"), first)
        case "large":
            return Blob("", gettext("%(size)s bytes, too large to be shown here", size=all_bytes))
    value = found["value"]
    if found["format"] == "json":
        return Blob(_laid_out(value, indent))
    text = value if isinstance(value, str) else _laid_out(value, indent)
    return Blob(text, gettext("not text: shown in base64") if found["format"] == "base64" else "")


def _laid_out(value: object, indent: int | None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if len(text) <= LAID_OUT_BYTES else json.dumps(value, ensure_ascii=False)
