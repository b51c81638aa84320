"""`import_alone.py EXTRA MODULES`: import modules of taskq with nothing installed but what one extra requires.

It hides every other package of the environment, so that a requirement that is missing in an extra shows. EXTRA is ""
for the core alone.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions, requires
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(extra: str) -> set[str]:
    """Return the names of the packages that taskq with this extra requires, directly or not."""
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


class Hider(MetaPathFinder):
    """Refuses to import packages other than those given."""

    def __init__(self, shown: set[str]) -> None:
        self._hidden = {
            package
            for package, owners in packages_distributions().items()
            if not {canonicalize_name(owner) for owner in owners} & shown
        }

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raise ModuleNotFoundError for a hidden package. Leave others to the next finder."""
        if name.partition(".")[0] in self._hidden:
            raise ModuleNotFoundError(f"No module named {name!r}: none of the requirements brings it", name=name)


extra, modules = sys.argv[1:]
sys.meta_path.insert(0, Hider(required(extra)))
for loaded in [name for name in sys.modules if name.startswith("packaging")]:
    del sys.modules[loaded]
for module in modules.split(", "):
    import_module(module)
