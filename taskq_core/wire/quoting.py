"""Quote and unquote text as Go does, for option strings."""

import ast
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
_ESCAPE = r"\\(?:[abfnrtv\\]|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
_QUOTED = re.compile(
    rf"""`(?P<raw>[^`]*)`|"(?P<text>(?:[^\\\n"]|\\"|{_ESCAPE})*)"|'(?P<character>[^\\\n']|\\'|{_ESCAPE})'""",
    re.DOTALL,
)
_PIECE = re.compile(rf"""{_ESCAPE}|\\["']|[^\\]+""")


def quote(text: str) -> str:
    """Return a text in double quotes with Go's escapes; a lone surrogate becomes U+FFFD."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_quoted, text))}"'


def unquote(quoted: str) -> str:
    """Return the text inside double quotes, single quotes (one character) or backquotes.

    Raises:
        WireFormatError: The quotes or an escape are wrong, or the result is not valid UTF-8.
    """
    found = _QUOTED.fullmatch(quoted)
    if found is None:
        raise WireFormatError("the quotes or an escape are wrong")
    if found["raw"] is not None:
        return found["raw"].replace("\r", "")
    pieces = _PIECE.findall(found["text"] or found["character"] or "")
    try:
        return b"".join(map(_unescaped, pieces)).decode()
    except ValueError:
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


def _unescaped(piece: str) -> bytes:
    # `\x` and octal escapes are bytes, `\u` and `\U` are characters.
    if piece[:2] in ("\\u", "\\U"):
        return chr(int(piece[2:], 16)).encode()
    return ast.literal_eval(f"b'{piece}'") if piece.startswith("\\") else piece.encode()


def escape_limit_name(name: str) -> str:
    """Escape the name of a limit, so that it has no colon or space."""
    return name.replace("%", "%25").replace(":", "%3A").replace(" ", "%20")


def unescape_limit_name(name: str) -> str:
    """Undo `escape_limit_name`."""
    return name.replace("%20", " ").replace("%3A", ":").replace("%25", "%")
