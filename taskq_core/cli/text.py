"""Text that came from elsewhere, fit to be shown. Apart from `render`, which takes long to load."""


def clean(text: str) -> str:
    """Return a text with everything that is no printable character spelled out, as ESC becomes backslash x1b."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
