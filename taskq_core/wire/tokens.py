"""Random tokens that identify connections, workers and lease holders."""

import os


def worker_token(worker_id: str) -> str:
    """Return the token that identifies a worker in tasks and leases, derived from the worker's id."""
    return worker_id.replace("-", "")[:16]


def new_token() -> str:
    """Return 16 random hex characters that identify a connection, a worker or a lease holder."""
    return os.urandom(8).hex()
