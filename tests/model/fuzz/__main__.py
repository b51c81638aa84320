"""Fuzz for a while: change what is in the corpora, keep what reaches new lines of code, stop at the first failure.

    make fuzz ARGS="--minutes 10"
    make fuzz ARGS="--minutes 2 --target cron --seed 7"

Where Python tells of lines that are run (3.12 and newer), inputs that reach new ones are changed further. A failure is
written to the corpus, which makes it a test.
"""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Sequence
from types import CodeType

from tests.model.fuzz.corpora import ALL, corpus, keep, run
from tests.model.fuzz.mutation import mutate
from tests.model.fuzz.pages import ready


class NewLines:
    """Tells whether lines of taskq's code were run that had not been before. Always no on Python 3.11."""

    def __init__(self) -> None:
        self._fresh = False
        self._monitoring = getattr(sys, "monitoring", None)
        if self._monitoring is not None:
            tool = self._monitoring.COVERAGE_ID
            self._monitoring.use_tool_id(tool, "taskq fuzz")
            self._monitoring.register_callback(tool, self._monitoring.events.LINE, self._see)
            self._monitoring.set_events(tool, self._monitoring.events.LINE)

    def _see(self, code: CodeType, line: int) -> object:
        assert self._monitoring is not None
        if any(room in code.co_filename for room in ("taskq_core", "taskq_fastapi", "taskq_django")):
            self._fresh = True
        return self._monitoring.DISABLE  # each line is told once

    def seen(self) -> bool:
        fresh, self._fresh = self._fresh, False
        return fresh


def main() -> int:
    """Run; return 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, for all targets together (default: 1)")
    parser.add_argument("--target", choices=ALL, action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="printed, to do the same again")
    options = parser.parse_args()
    targets = options.target or list(ALL)
    print(f"seed {options.seed}", flush=True)
    with ready():
        return fuzz(targets, options.minutes, random.Random(options.seed))


def fuzz(targets: Sequence[str], minutes: float, draw: random.Random) -> int:
    """Run; return 1 if something was found."""
    lines = NewLines()
    for target in targets:
        pool = [file.read_bytes() for file in corpus(target)]
        for data in pool:
            run(target, data)
        lines.seen()
        began, runs, kept = time.monotonic(), 0, len(pool)
        while time.monotonic() - began < minutes * 60 / len(targets):
            data = mutate(draw.choice(pool), pool, draw)
            runs += 1
            try:
                if runs % 50:
                    ALL[target](data)
                else:
                    run(target, data)  # looking at memory makes it slow
            except Exception:
                traceback.print_exc()
                print(f"{target}: failed at run {runs}; the input is kept as {keep(target, data)}")
                return 1
            if lines.seen():
                pool.append(data)
        print(f"{target}: {runs} runs, {len(pool) - kept} of them reached new lines", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
