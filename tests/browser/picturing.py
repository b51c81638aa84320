"""Save screenshots of pages for the docs."""

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WINDOW = {"width": 1200, "height": 720}
LONGEST = 1600
"""Maximum height of a screenshot in pixels. The rest of a longer page is cut off."""
COLOURS = 128
"""Number of colors of a screenshot. This reduces the file to a third, without a visible difference."""


def take(page: Page, file: Path, *, longest: int = LONGEST) -> None:
    """Save a screenshot of a page."""
    page.evaluate("() => { scrollTo(0, 0); document.activeElement.blur() }")
    page.mouse.move(0, 0)
    size = page.evaluate("({width: innerWidth, height: document.documentElement.scrollHeight})")
    clip: Any = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], longest)}
    with Image.open(BytesIO(page.screenshot(full_page=True, clip=clip, animations="disabled"))) as picture:
        file.parent.mkdir(parents=True, exist_ok=True)
        few = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(file, optimize=True)
