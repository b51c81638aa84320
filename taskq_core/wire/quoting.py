"""Quote and unquote text as Go does, for option strings, and escape text for terminals and logs."""

import ast
import re

from taskq_core.errors import WireFormatError

_QUOTED = re.compile(
    r'"(?:[^"\\\n]|\\(?:[abfnrtv\\"]|x[0-7][0-9a-fA-F]|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[01][0-7]{2}))*"'
)
"""Matches text in double quotes with Go's escapes that Python reads alike. It excludes escapes of bytes above 127."""
_SHORT = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}


def quote(text: str) -> str:
    """Return a text in double quotes with Go's escapes; a lone surrogate becomes U+FFFD."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_quoted, text))}"'


def unquote(quoted: str) -> str:
    """Return the text that Go or `quote` has written in double quotes.

    Raises:
        WireFormatError: The text is not in double quotes, or an escape is wrong.
    """
    try:
        if _QUOTED.fullmatch(quoted):
            text = str(ast.literal_eval(quoted))
            text.encode()  # raises a ValueError if the text has a lone surrogate
            return text
    except (SyntaxError, ValueError):
        pass
    raise WireFormatError("the text is not in double quotes, or an escape is wrong")


def _quoted(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if character.isprintable():
        return character
    number = ord(character)
    if 0xD800 <= number <= 0xDFFF:
        return "\N{REPLACEMENT CHARACTER}"
    if number < 0x20 or number == 0x7F:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def clean(text: str) -> str:
    """Return a text with unprintable characters escaped, so that it cannot control a terminal or break a line.

    These are control characters, line and paragraph separators, and characters that change the writing direction: ESC
    becomes backslash x1b.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def escape_limit_name(name: str) -> str:
    """Escape the name of a limit, so that it has no colon or space."""
    return name.replace("%", "%25").replace(":", "%3A").replace(" ", "%20")


def unescape_limit_name(name: str) -> str:
    """Undo `escape_limit_name`."""
    return name.replace("%20", " ").replace("%3A", ":").replace("%25", "%")
