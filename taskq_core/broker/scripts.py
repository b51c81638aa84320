"""The Lua scripts, all read from `lua/` when the first is needed.

All at once: a process that later has no file descriptors left still extends its leases, and one whose package is
replaced while it runs never mixes scripts of two releases.

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


def load(name: str) -> Script:
    """Return the script `lua/<name>.lua`, its includes filled in."""
    return _scripts()[name]


def all_scripts() -> list[Script]:
    """Return every script."""
    return list(_scripts().values())


@cache
def _scripts() -> dict[str, Script]:
    folder = files("taskq_core.broker") / "lua"
    found = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".lua")}

    def script(name: str) -> Script:
        text = _HEADER.sub("", found[f"{name}.lua"])
        text = _INCLUDE.sub(lambda match: found[f"{match[1]}.lua"].rstrip("\n"), text)
        return Script(name=name, text=text, sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    names = [file.removesuffix(".lua") for file in found if not file.startswith("_")]
    return {name: script(name) for name in names}
