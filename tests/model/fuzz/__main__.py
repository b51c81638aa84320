"""Fuzz for some minutes: mutate inputs of the corpora, keep inputs that reach new lines of code, stop at a failure.

    make fuzz ARGS="--minutes 10"
    make fuzz ARGS="--minutes 2 --target cron --seed 7"

With Python 3.12 and newer, inputs that reach new lines of code are mutated further. An input that fails is added to the
corpus, so that the tests run it from then on.
"""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Sequence
from types import CodeType

from tests.model.fuzz.corpora import ALL, add_to_corpus, corpus, run
from tests.model.fuzz.mutation import mutate
from tests.model.fuzz.pages import django_ready


class NewLines:
    """Detects whether new lines of taskq's code were run. Always False on Python 3.11."""

    def __init__(self) -> None:
        self._fresh = False
        self._monitoring = getattr(sys, "monitoring", None)
        if self._monitoring is not None:
            tool = self._monitoring.COVERAGE_ID
            self._monitoring.use_tool_id(tool, "taskq fuzz")
            self._monitoring.register_callback(tool, self._monitoring.events.LINE, self._on_line)
            self._monitoring.set_events(tool, self._monitoring.events.LINE)

    def _on_line(self, code: CodeType, line: int) -> object:
        assert self._monitoring is not None
        if any(room in code.co_filename for room in ("taskq_core", "taskq_fastapi", "taskq_django")):
            self._fresh = True
        return self._monitoring.DISABLE  # report each line once

    def take(self) -> bool:
        """Return whether new lines were run since the last call."""
        fresh, self._fresh = self._fresh, False
        return fresh


def main() -> int:
    """Parse the arguments and fuzz. Return 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="total duration of all targets (default: 1)")
    parser.add_argument("--target", choices=ALL, action="append", help="fuzz only this target; may be repeated")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="seed (default: random, printed)")
    options = parser.parse_args()
    targets = options.target or list(ALL)
    print(f"seed {options.seed}", flush=True)
    with django_ready():
        return fuzz(targets, options.minutes, random.Random(options.seed))


def fuzz(targets: Sequence[str], minutes: float, draw: random.Random) -> int:
    """Fuzz the targets one after the other. Return 1 after a failure."""
    lines = NewLines()
    for target in targets:
        pool = [file.read_bytes() for file in corpus(target)]
        for data in pool:
            run(target, data)
        lines.take()
        began, runs, kept = time.monotonic(), 0, len(pool)
        while time.monotonic() - began < minutes * 60 / len(targets):
            data = mutate(draw.choice(pool), pool, draw)
            runs += 1
            try:
                if runs % 50:
                    ALL[target](data)
                else:
                    run(target, data)  # measures memory, which is slow
            except Exception:
                traceback.print_exc()
                print(f"{target}: failed at run {runs}; the input was saved as {add_to_corpus(target, data)}")
                return 1
            if lines.take():
                pool.append(data)
        print(f"{target}: {runs} runs, {len(pool) - kept} of them reached new lines", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
