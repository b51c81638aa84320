"""What somebody chooses for themselves: colours, how often pages are renewed, rows on a page."""

from taskq_fastapi.dashboard import preferences
from taskq_fastapi.dashboard.form import Form
from taskq_fastapi.dashboard.registry import Action, Done, Page
from taskq_fastapi.dashboard.view import Shown, View


async def show(view: View) -> Shown:
    """Show what is chosen."""
    return view.page(
        "settings.html",
        title="Settings",
        themes=preferences.THEMES,
        intervals=preferences.INTERVALS,
        rows_choices=preferences.ROWS,
    )


async def save(view: View, form: Form) -> Done:
    """Keep what is chosen, in a cookie."""
    view.new_preferences = preferences.chosen(form)
    return Done(text="Saved in this browser.")


PAGE = Page(path="settings", label="Settings", show=show, is_live=False)
SAVE = Action(path="settings-save", perform=save, for_viewers=True, audited=("theme", "interval", "rows"))
