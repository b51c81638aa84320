"""Load the Lua scripts in `lua/`. The first use of any script reads all files.

All files are read at once for two reasons. A process that later has no file descriptors left can still extend its
leases. And a process whose package is replaced while it runs never mixes scripts of two releases.

A file without a leading underscore is one script. A line `-- include _name` in it, or in an included file, includes the
shared file `_name.lua`. Headers (`--[[ ... ]]`) are documentation and are not sent.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from msgspec import Struct

_FOLDER = Path(__file__).with_name("lua")
_INCLUDE = re.compile(r"^-- include (_\w+)$", re.MULTILINE)
_SHA = re.compile(r"(?: script: |\bf_)([0-9a-f]{40})\b")
_LINE = re.compile(r"@?user_script: ?(\d+)")
_PLACE_AT_END = re.compile(r" script: [0-9a-f]{40}, on (@user_script:\d+)\.?$")
"""The end of an error text since Redis 7. Before, the text begins with the SHA-1."""
_HEADER = re.compile(r"\A--\[\[.*?\]\]\n", re.DOTALL)


class Script(Struct, frozen=True):
    """One Lua script.

    Attributes:
        name: Name of the file without `.lua`.
        sha: Hex SHA-1 of the text, which identifies the script in Redis.
        parts: The text in pieces. Scripts share the strings of included files; joined texts would take six times the
            memory.
    """

    name: str
    sha: str
    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text that is sent to Redis."""
        return "".join(self.parts)


@cache
def load(name: str) -> Script:
    """Return the script `lua/<name>.lua` with its included files."""
    return _scripts()[name]


def all_scripts() -> list[Script]:
    """Return every script."""
    return list(_scripts().values())


def with_places(text: str) -> str:
    """Return an error text of Redis with places in files instead of lines of a script.

    In `settle/_unique.lua:12`, the script `settle` includes the file `_unique.lua`. A text that names no script of
    taskq is returned as it is.
    """
    found = _SHA.search(text)
    name = next((each.name for each in all_scripts() if found and each.sha == found[1]), None)
    if name is None:
        return text
    places = ["", *_places(name)]

    def place(line: re.Match[str]) -> str:
        number = int(line[1])
        return places[number] if number < len(places) else line[0]

    return _LINE.sub(place, _PLACE_AT_END.sub(r" (at \1)", text))


def _places(name: str, of: str = "") -> Iterator[str]:
    """Yield the place of each line of a script, or of the file `name` that the script `of` includes."""
    number, pieces = _files()[name]
    code = "".join(f"-- include {piece}" if at % 2 else piece for at, piece in enumerate(pieces))
    for line in code.split("\n"):
        include = _INCLUDE.fullmatch(line)
        if include:
            yield from _places(include[1], of or f"{name}/")
        else:
            yield f"{of}{name}.lua:{number}"
        number += 1


@cache
def _scripts() -> dict[str, Script]:
    return {name: _script(name) for name in _files() if not name.startswith("_")}


@cache
def _files() -> dict[str, tuple[int, list[str]]]:
    """Read all files. Return, by name, the line at which the code begins, and the pieces between the includes.

    The pieces with even indexes are code, those with odd indexes are the names of included files.
    """
    files = {}
    for file in _FOLDER.glob("*.lua"):
        text = file.read_text(encoding="utf-8")
        code = _HEADER.sub("", text)
        begin = text.count("\n") - code.count("\n") + 1
        files[file.stem] = begin, _INCLUDE.split(code.rstrip("\n") if file.stem.startswith("_") else code)
    return files


def _script(name: str) -> Script:
    parts = tuple(_parts(name))
    sha = hashlib.sha1(usedforsecurity=False)
    for part in parts:
        sha.update(part.encode())
    return Script(name, sha.hexdigest(), parts)


def _parts(name: str) -> Iterator[str]:
    for at, piece in enumerate(_files()[name][1]):
        if at % 2:
            yield from _parts(piece)
        else:
            yield piece
