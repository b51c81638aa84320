"""A form field for JSON that refuses, in words, all that a database or a page could not take.

Django's own refuses what is no JSON. Beyond that there is JSON nested so deeply, and numbers so long, that reading them
fails; numbers that are none and characters that PostgreSQL does not store; and halves of characters, which no page
can show.
"""

import json
import math
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext_lazy as _

DEPTH_MAX = 64
"""Most levels of nesting."""


class StoredJSONField(forms.JSONField):
    """JSON that can be stored in any database and shown on any page."""

    default_error_messages = {  # noqa: RUF012 - Django's own form
        "unreadable": _("This JSON cannot be read: it is nested too deeply, or has a number of too many digits."),
        "unstorable": _("This JSON has what cannot be stored: NaN, Infinity, the character U+0000 or half of one."),
    }

    def to_python(self, value: Any) -> Any:
        """Return the value. Raises `ValidationError`."""
        try:
            found = super().to_python(value)
        except (RecursionError, ValueError):
            raise self._refusal("unreadable") from None
        if _depth(found) > DEPTH_MAX:
            raise self._refusal("unreadable")
        if not all(_is_storable(each) for each in _within(found)):
            raise self._refusal("unstorable")
        return found

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return what is shown again: what cannot be read as it was typed."""
        try:
            self.clean(data)
        except ValidationError:
            return initial if self.disabled else None if data is None else InvalidJSONInput(data)
        return super().bound_data(data, initial)

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether it is another value; what cannot be read is."""
        try:
            return super().has_changed(initial, data)
        except (RecursionError, ValueError):
            return True

    def prepare_value(self, value: Any) -> Any:
        """Return the text of a value; of one that no page can show, with escapes."""
        text = super().prepare_value(value)
        return json.dumps(value, cls=self.encoder) if isinstance(text, str) and not _is_encodable(text) else text

    def _refusal(self, code: str) -> ValidationError:
        return ValidationError(self.error_messages[code], code=code)


def _parts(value: Any) -> list[Any]:
    """What stands within a value: names are among it."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _depth(value: Any) -> int:
    """How deeply a value is nested, counted no further than is needed to refuse it."""
    level, depth = [value], 0
    while (level := [part for each in level for part in _parts(each)]) and depth <= DEPTH_MAX:
        depth += 1
    return depth


def _within(value: Any) -> list[Any]:
    """A value and all that stands within it."""
    found = [value]
    for each in found:  # it grows on the way
        found += _parts(each)
    return found


def _is_storable(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, str) or ("\0" not in value and _is_encodable(value))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
