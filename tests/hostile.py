"""A text that runs a script where a page does not escape it, and the check of a page that shows it."""

import re

HOSTILE = (
    "</pre></textarea></title><script>alert('x')</script>"
    "\" onfocus=\"alert('x')\" autofocus=\" ' onfocus='alert(1)' autofocus=' {{ 7|add:7 }}"
)
"""It leaves the text, an attribute with either quote, and the elements whose content is no markup."""


def assert_escaped(html: str) -> None:
    """Check that a page shows the hostile text, and only as text."""
    assert "&lt;script&gt;alert" in html
    assert "<script>alert" not in html
    assert not re.search("onfocus=[\"']", html)
