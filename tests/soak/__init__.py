"""The soak test: run workers, schedulers and producers as real processes, inject faults, check that no task is lost.

`python -m tests.soak` runs it; see `tests/soak/README.md`. A seed determines the faults. The processes write what they
do into files (ledgers) outside Redis. After the run, 28 invariants are checked against these files and Redis.
`python -m tests.soak.mutants` tests the soak itself: it must fail for copies of the code with deliberate errors.
"""
