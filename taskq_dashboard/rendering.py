"""Render pages to HTML. All values are escaped except output of our own templates. Undefined variables are errors.

A template extends `base.html` and fills its block `main`, which is updated while the page is open. `ui` has macros, and
`link` returns addresses. Filters format values: `number`, `percent`, `size`, `span`, `moment`. `_("...")` and
`{% trans %}` translate texts, and the filter `word` translates a word from Redis with its context.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from taskq_core.settings.language import gettext, ngettext, pgettext
from taskq_core.views import STATES, bars
from taskq_core.views.labels import step_state, wait_text
from taskq_dashboard import labels as wording
from taskq_dashboard.assets import Assets
from taskq_dashboard.task_labels import roughly
from taskq_dashboard.view import Shown, View, link


class Rendering:
    """The templates of one dashboard.

    Args:
        assets: Files that pages need.
        common: Variables of every page.
    """

    def __init__(self, assets: Assets, **common: Any) -> None:
        self._environment = Environment(
            loader=PackageLoader("taskq_dashboard", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            extensions=["jinja2.ext.i18n"],
        )
        self._environment.install_gettext_callables(  # type: ignore[attr-defined]  # which the extension adds
            gettext, ngettext, newstyle=True, pgettext=pgettext
        )
        self._environment.globals.update(link=link, assets=assets.paths, states=STATES, **common)
        self._environment.filters.update(
            number=wording.number,
            percent=wording.percent,
            size=wording.size,
            span=wording.span,
            moment=wording.moment,
            duration=wording.duration,
            bars=bars,
            roughly=roughly,
            word=_word,
            step_state=step_state,
            wait=wait_text,
        )
        self._environment.globals["ui"] = self._environment.get_template("ui.html").module

    def whole(self, view: View, shown: Shown, **more: Any) -> str:
        """Return a page."""
        context = {**_common(view, shown), **more, **shown.context}
        return self._environment.get_template(shown.template).render(context)

    def contents(self, view: View, shown: Shown) -> str:
        """Return the part of a page that is updated: its block `main`."""
        template = self._environment.get_template(shown.template)
        context = template.new_context({**_common(view, shown), **shown.context})
        return "".join(template.blocks["main"](context))

    def plain(self, template: str, **context: Any) -> str:
        """Return a page for a refused user."""
        return self._environment.get_template(template).render(context)


def _word(value: object, context: str) -> str:
    """Return the translation of a word that Redis or the code contains in English."""
    return pgettext(context, str(value)) if value is not None else ""


def _common(view: View, shown: Shown) -> dict[str, Any]:
    return {"view": view, "title": shown.title, "up": "", "is_live": True, "is_away": False}
