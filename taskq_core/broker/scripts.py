"""Load the Lua scripts in `lua/`. The first use of any script reads all files.

All files are read at once for two reasons. A process that later has no file descriptors left can still extend its
leases. And a process whose package is replaced while it runs never mixes scripts of two releases.

A file without a leading underscore is one script. A line `-- include _name` in it, or in an included file, includes the
shared file `_name.lua`. Headers (`--[[ ... ]]`) are documentation and are not sent.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from msgspec import Struct

_FOLDER = Path(__file__).with_name("lua")
_INCLUDE = re.compile(r"^-- include (_\w+)$", re.MULTILINE)
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


@cache
def _scripts() -> dict[str, Script]:
    # `split` returns text at even indexes, and names of included files at odd indexes.
    pieces = {file.stem: _INCLUDE.split(_sent(file)) for file in _FOLDER.glob("*.lua")}
    return {name: _script(name, pieces) for name in pieces if not name.startswith("_")}


def _sent(file: Path) -> str:
    text = _HEADER.sub("", file.read_text(encoding="utf-8"))
    return text.rstrip("\n") if file.stem.startswith("_") else text


def _script(name: str, pieces: Mapping[str, Sequence[str]]) -> Script:
    parts = tuple(_parts(name, pieces))
    sha = hashlib.sha1(usedforsecurity=False)
    for part in parts:
        sha.update(part.encode())
    return Script(name, sha.hexdigest(), parts)


def _parts(name: str, pieces: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for place, piece in enumerate(pieces[name]):
        if place % 2:
            yield from _parts(piece, pieces)
        else:
            yield piece
