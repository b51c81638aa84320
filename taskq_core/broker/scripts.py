"""The Lua scripts, read once from `lua/`.

A file without a leading underscore is one transition. A line `-- include _name` in it stands for the shared file
`_name.lua`. Headers (`--[[ ... ]]`) are for the reader and are not sent.
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
        name: Name of its file without `.lua`.
        text: What is sent to Redis.
        sha: Hex SHA-1 of the text, by which Redis knows it once loaded.
    """

    name: str
    text: str
    sha: str


@cache
def load(name: str) -> Script:
    """Return the script `lua/<name>.lua`, its includes filled in."""
    folder = files("taskq_core.broker") / "lua"

    def read(file: str) -> str:
        return (folder / f"{file}.lua").read_text(encoding="utf-8")

    text = _INCLUDE.sub(lambda match: read(match[1]).rstrip("\n"), _HEADER.sub("", read(name)))
    return Script(name=name, text=text, sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
