"""`import_alone.py EXTRA MODULES`: import modules of taskq while only the packages that one extra requires are visible.

The script hides every other package of the environment, so an import fails if a requirement is missing in the extra.
EXTRA is "" for the requirements of the core alone.
"""

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.metadata import distributions, requires
from pathlib import PurePath
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(extra: str) -> set[str]:
    """Return the names of all packages that taskq with this extra requires, directly and indirectly."""
    found: set[tuple[str, str]] = set()
    open_ends = [("taskq-asynq", ""), ("taskq-asynq", extra)]
    while open_ends:
        name, wanted = open_ends.pop()
        if (name, wanted) in found:
            continue
        found.add((name, wanted))
        for each in map(Requirement, requires(name) or ()):
            if each.marker is None or each.marker.evaluate({"extra": wanted}):
                open_ends += [(canonicalize_name(each.name), part) for part in ("", *each.extras)]
    return {name for name, _ in found}


def modules_of(files: Iterable[PurePath]) -> set[str]:
    """Return the names of the modules that the files of a package contain."""
    found = set()
    for path in files:
        if path.suffix in (".py", ".so"):
            parts = [*path.parent.parts, path.name.partition(".")[0]]
            found.add(".".join(parts).removesuffix(".__init__"))
    return found


class Hider(MetaPathFinder):
    """An import hook that rejects modules of all packages except the given ones."""

    def __init__(self, shown: set[str]) -> None:
        self._hidden: set[str] = set()
        for package in distributions():
            if canonicalize_name(package.name) not in shown:
                self._hidden |= modules_of(package.files or ())

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raise ModuleNotFoundError for a hidden module. Leave others to the next finder."""
        if name in self._hidden:
            raise ModuleNotFoundError(f"No module named {name!r}: no requirement of this extra installs it", name=name)


extra, modules = sys.argv[1:]
sys.meta_path.insert(0, Hider(required(extra)))
for loaded in [name for name in sys.modules if name.startswith("packaging")]:
    del sys.modules[loaded]
for module in modules.split(", "):
    import_module(module)
