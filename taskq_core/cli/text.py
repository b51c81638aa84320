"""Make text from Redis safe to print to a terminal. A separate module, because `render` is slow to import."""


def clean(text: str) -> str:
    """Return a text with unprintable characters escaped: ESC becomes backslash x1b."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
