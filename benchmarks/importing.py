"""Print the memory and the time that the imports of `taskq worker` take, by package.

Run the file with the interpreter to measure, for example that of a virtual environment without optional packages. The
memory and time of a package exclude what its modules import from other packages. Standard library modules are together.
"""

import importlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from types import ModuleType

WORKER = ("asyncio", "uvloop", "taskq_core.cli.command", "taskq_core.cli.worker")
"""The modules that an idle worker of the command `taskq` imports. The others follow from these."""
_SHOWN_KB = 200


def resident_kb() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


class Costs:
    """Measures each import while it runs, and adds up the costs by package."""

    def __init__(self) -> None:
        self._inner: list[list[float]] = []
        self.by_package: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])

    def measured(self, execute: Callable[..., None]) -> Callable[..., None]:
        """Return a function that executes a module as `execute` does, and records its cost."""

        def execute_and_measure(loader: object, module: ModuleType) -> None:
            self._inner.append([0.0, 0.0])
            before_kb, started = resident_kb(), time.perf_counter()
            try:
                execute(loader, module)
            finally:
                cost = [resident_kb() - before_kb, (time.perf_counter() - started) * 1000]
                inner = self._inner.pop()
                package = module.__name__.partition(".")[0]
                found = self.by_package["Python" if package in sys.stdlib_module_names else package]
                for number in (0, 1):
                    found[number] += cost[number] - inner[number]
                    if self._inner:
                        self._inner[-1][number] += cost[number]
                found[2] += 1

        return execute_and_measure


def main() -> None:
    """Import what a worker imports, and print a table."""
    costs, started_kb = Costs(), resident_kb()
    for loader in (SourceFileLoader, ExtensionFileLoader):
        loader.exec_module = costs.measured(loader.exec_module)  # type: ignore[method-assign]
    for name in WORKER:
        importlib.import_module(name)
    print("| package | resident memory | time | modules |\n|---|---|---|---|")
    print(f"| Python before the first import | {started_kb / 1024:.1f} MB | | |")
    for package, (kb, ms, modules) in sorted(costs.by_package.items(), key=lambda item: -item[1][0]):
        if kb >= _SHOWN_KB:
            print(f"| {package} | {kb / 1024:.1f} MB | {ms:.0f} ms | {modules:.0f} |")
    print(f"| all | {resident_kb() / 1024:.1f} MB | | |")


if __name__ == "__main__":
    main()
