"""Check that no modules import each other in a circle. Imports in functions count, those for type checkers do not."""

import sys
from graphlib import CycleError, TopologicalSorter

import grimp

from scripts.ci import PACKAGES


def main() -> int:
    """Print the first circle that is found. Return 1 if there is one."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        print("modules import each other in a circle:", " <- ".join(error.args[1]))
        return 1
    print(f"no circle among {len(imports)} modules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
