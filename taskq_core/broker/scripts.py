"""Load the Lua scripts in `lua/`. The first use of any script reads all files.

All files are read at once for two reasons. A process that later has no file descriptors left can still extend its
leases. And a process whose package is replaced while it runs never mixes scripts of two releases.

A file without a leading underscore is one script. A line `-- include _name` in it, or in an included file, includes the
shared file `_name.lua`. Headers (`--[[ ... ]]`) are documentation and are not sent.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^-- include (_\w+)$", re.MULTILINE)
_HEADER = re.compile(r"\A--\[\[.*?\]\]\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Script:
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
    folder = files("taskq_core.broker") / "lua"
    found = {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }

    def parts_of(text: str) -> list[str]:
        # `split` returns text at even indexes, and names of included files at odd indexes.
        parts: list[str] = []
        for place, piece in enumerate(_INCLUDE.split(text)):
            parts += included(piece) if place % 2 else [piece]
        return parts

    @cache
    def included(name: str) -> list[str]:
        return parts_of(found[name].rstrip("\n"))

    def script(name: str) -> Script:
        parts = tuple(parts_of(_HEADER.sub("", found[name])))
        return Script(name, hashlib.sha1("".join(parts).encode(), usedforsecurity=False).hexdigest(), parts)

    return {name: script(name) for name in found if not name.startswith("_")}
