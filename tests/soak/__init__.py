"""The soak: everything runs as real processes on a real Redis, faults are injected from a seed, nothing may be lost.

`python -m tests.soak` runs it; see `tests/soak/README.md`. What happens is written to ledgers outside Redis and
judged afterwards by 26 invariants. `python -m tests.soak.mutants` breaks copies of the tree on purpose and checks
that the soak notices.
"""
