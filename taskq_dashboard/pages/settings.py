"""Show and save the preferences of a user: colors, language, update interval, rows on a page."""

from taskq_core.settings.language import gettext, marked, translated_with
from taskq_dashboard import preferences
from taskq_dashboard.form import Form
from taskq_dashboard.languages import catalogue, language_by
from taskq_dashboard.registry import Done, action, page
from taskq_dashboard.view import Shown, View


@page("settings", label=marked("Settings"), is_live=False)
async def show(view: View) -> Shown:
    """Show the preferences."""
    return view.page(
        "settings.html",
        title=gettext("Settings"),
        themes=preferences.THEMES,
        intervals=preferences.INTERVALS,
        rows_choices=preferences.ROWS,
        languages=preferences.LANGUAGES,
    )


@action("settings-save", for_viewers=True, audited=("theme", "language", "interval", "rows"))
async def save(view: View, form: Form) -> Done:
    """Save the preferences in a cookie."""
    view.new_preferences = preferences.chosen(form)
    with translated_with(catalogue(language_by(view.new_preferences, view.request))):  # in the chosen language
        return Done(text=gettext("Saved in this browser."))
