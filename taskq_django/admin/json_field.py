"""A form field for JSON that rejects values that a database cannot store or a page cannot show.

These are NaN and infinity, the character U+0000, lone surrogates, and JSON that is nested too deeply to be parsed.
"""

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext_lazy as _

from taskq_core.views import check_json, json_levels


class StoredJSONField(forms.JSONField):
    """JSON that can be stored in any database and shown on any page."""

    default_error_messages = {  # noqa: RUF012 - Django's own form
        "unstorable": _(
            "This JSON cannot be stored: it has NaN, Infinity, the character U+0000, a lone surrogate, a number with "
            "too many digits, or is nested too deeply."
        ),
    }

    def to_python(self, value: Any) -> Any:
        """Return the value. Raises `ValidationError`."""
        try:
            found = super().to_python(value)
            check_json(found)
            strings = (each for level in json_levels(found) for each in level if isinstance(each, str))
            is_storable = not any("\0" in each for each in strings)
        except (RecursionError, ValueError):
            is_storable = False
        if not is_storable:
            raise ValidationError(self.error_messages["unstorable"], code="unstorable")
        return found

    def prepare_value(self, value: Any) -> Any:
        """Return the text of a value. A stored lone surrogate is escaped, because a page cannot contain it."""
        text = super().prepare_value(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            return json.dumps(value, cls=self.encoder)
        return text

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return the value to show in the form again. Invalid input is shown as it was typed."""
        try:
            self.clean(data)
        except ValidationError:
            return None if data is None else InvalidJSONInput(data)
        return super().bound_data(data, initial)
