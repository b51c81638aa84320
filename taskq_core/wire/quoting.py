"""Text in Go's quotes, inside option strings."""

import re

from taskq_core.errors import WireFormatError

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
_LETTERS = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}
_PIECE = re.compile(
    r"(?P<plain>[^\\\n])"
    r"|\\(?:(?P<letter>[abfnrtv\\'\"])"
    r"|x(?P<hex>[0-9a-fA-F]{2})"
    r"|(?P<octal>[0-7]{3})"
    r"|u(?P<short>[0-9a-fA-F]{4})"
    r"|U(?P<long>[0-9a-fA-F]{8}))"
)


def quote(text: str) -> str:
    """Return text in double quotes with Go's escapes; a lone surrogate becomes U+FFFD."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_quoted, text))}"'


def unquote(quoted: str) -> str:
    """Return the text inside double quotes, single quotes (one character) or backquotes.

    Raises:
        WireFormatError: The quotes or an escape are wrong, or the result is not valid UTF-8.
    """
    mark, inner = quoted[:1], quoted[1:-1]
    if len(quoted) < 2 or mark not in ('"', "'", "`") or quoted[-1] != mark:
        raise WireFormatError("the quotes do not match")
    if mark == "`":
        if "`" in inner:
            raise WireFormatError("a backquote stands inside backquotes")
        return inner.replace("\r", "")
    pieces: list[bytes] = []
    position = 0
    while position < len(inner):
        found = _PIECE.match(inner, position)
        if found is None or found["plain"] == mark or (found["letter"] in ("'", '"') and found["letter"] != mark):
            raise WireFormatError("an escape or a quote is wrong")
        pieces.append(_unescaped(found))
        position = found.end()
    if mark == "'" and len(pieces) != 1:
        raise WireFormatError("single quotes hold exactly one character")
    try:
        return b"".join(pieces).decode()
    except UnicodeDecodeError:
        raise WireFormatError("the text is not valid UTF-8") from None


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


def _unescaped(found: re.Match[str]) -> bytes:
    # `\x` and octal escape a byte, `\u` and `\U` a character.
    if found["plain"] is not None:
        return _encoded(found["plain"])
    if found["letter"] is not None:
        return bytes((_LETTERS[found["letter"]],))
    if found["hex"] is not None:
        return bytes((int(found["hex"], 16),))
    if found["octal"] is not None:
        value = int(found["octal"], 8)
        if value > 0xFF:
            raise WireFormatError("an octal escape is over 377")
        return bytes((value,))
    number = int(found["short"] or found["long"], 16)
    if number > 0x10FFFF:
        raise WireFormatError("an escape is beyond Unicode")
    return _encoded(chr(number))


def _encoded(character: str) -> bytes:
    try:
        return character.encode()
    except UnicodeEncodeError:
        raise WireFormatError("the text is not valid UTF-8") from None


def escape_limit_name(name: str) -> str:
    """Escape the name of a limit, so that it has no colon or space."""
    return name.replace("%", "%25").replace(":", "%3A").replace(" ", "%20")


def unescape_limit_name(name: str) -> str:
    """Undo `escape_limit_name`."""
    return name.replace("%20", " ").replace("%3A", ":").replace("%25", "%")
