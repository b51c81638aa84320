"""Widgets of our forms from the `ModelAdmin` that a page stands over, so that a theme's own are used.

Django lets a `ModelAdmin` choose widgets by the kind of database field (`formfield_overrides`,
`formfield_for_dbfield`). There is none here, so each form field is asked for as the database field it would have.
"""

from typing import Any

from django import forms
from django.db import models
from django.http import HttpRequest

_KINDS: tuple[tuple[type[forms.Field], Any], ...] = (
    (forms.SplitDateTimeField, models.DateTimeField),
    (forms.DateField, models.DateField),
    (forms.FloatField, models.FloatField),
    (forms.IntegerField, models.IntegerField),
    (forms.UUIDField, models.UUIDField),
    (forms.BooleanField, models.BooleanField),
    (forms.CharField, models.CharField),
)
"""Form fields, the more special before what they are derived from, and the database fields they come from."""
_KEPT = ("rows", "spellcheck")


def themed_field(modeladmin: Any, request: HttpRequest, name: str, field: forms.Field) -> None:
    """Give a form field the widget that this `ModelAdmin` would have for it."""
    if field.widget.is_hidden or isinstance(field, forms.MultipleChoiceField):
        return  # no database field has several of its choices
    kind = _database_field(field)
    kind.set_attributes_from_name(name)
    kind.model = modeladmin.model
    made = modeladmin.formfield_for_dbfield(kind, request)
    if made is None:
        return
    widget, own = made.widget, field.widget.attrs
    widget.attrs.update({key: value for key, value in own.items() if key in _KEPT})
    if ours := [each for each in str(own.get("class", "")).split() if each.startswith("taskq-")]:
        widget.attrs["class"] = " ".join(filter(None, (widget.attrs.get("class", ""), *ours)))
    widget.is_required = field.required
    widget.is_localized = field.localize
    widget.attrs.update(field.widget_attrs(widget))
    field.widget = widget
    if isinstance(field, forms.ChoiceField):
        field.choices = field.choices  # the widget's too


def themed(modeladmin: Any, request: HttpRequest, form: forms.BaseForm) -> None:
    """Give all fields of a form the widgets that this `ModelAdmin` would have for them."""
    for name, field in form.fields.items():
        themed_field(modeladmin, request, name, field)


def _database_field(field: forms.Field) -> Any:
    if isinstance(field, forms.ChoiceField):
        choices: Any = field.choices
        return models.CharField(choices=list(choices))
    if isinstance(field.widget, forms.Textarea):
        return models.TextField()
    if isinstance(field, forms.DecimalField):
        return models.DecimalField(max_digits=None, decimal_places=None)
    return next((made() for kind, made in _KINDS if isinstance(field, kind)), models.CharField())
