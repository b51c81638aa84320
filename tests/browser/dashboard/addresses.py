"""Addresses of every page there is, of which what holds for all pages is tried. A page without one fails a test."""

from collections.abc import Mapping, Sequence

from tests.browser.scene import Scene


def addresses(scene: Scene) -> Mapping[str, Sequence[str]]:
    """Return addresses by the path of a page, "" for the home page, with what the scene has behind them."""
    return {
        "": ["./", "./?sort=-size&days=30"],
        "queue": ["queue?name=mail", "queue?name=reports&days=90", "queue?name=mail&state=retry"],
        "settings": ["settings"],
    }


def questions(scene: Scene) -> Sequence[str]:
    """Return addresses of what is asked before something is done."""
    return ["queue-delete?queue=mail"]


ODD = ("nowhere", "queue?name=none", "queue?name=mail&state=none")
"""Addresses of what is not there, or not usable."""
