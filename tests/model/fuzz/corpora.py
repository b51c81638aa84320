"""The corpora: small files in `corpus/<target>/`, run every time. What a fuzzer finds is added to them."""

import hashlib
import tracemalloc
from pathlib import Path

from tests.model.fuzz.pages import PAGE_TARGETS
from tests.model.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
ALL = {**TARGETS, **PAGE_TARGETS}
SPARE_BYTES = 1 << 20
PAGE_BYTES = 64 << 20
"""The same for a request: templates are compiled when they are needed first."""
BYTES_PER_BYTE = 200
"""What a target may take of memory: so much, and so much for each byte that it is given."""


def corpus(target: str) -> list[Path]:
    """The files of a target."""
    return sorted((CORPUS / target).iterdir())


def run(target: str, data: bytes) -> None:
    """Run a target, and see how much memory it takes at most.

    Raises:
        AssertionError: It took more than it may, or what it read did not survive.
    """
    tracemalloc.start()
    try:
        ALL[target](data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    most = (PAGE_BYTES if target in PAGE_TARGETS else SPARE_BYTES) + BYTES_PER_BYTE * len(data)
    assert peak <= most, f"{peak} bytes of memory for {len(data)} bytes of input, at most {most} are expected"


def keep(target: str, data: bytes) -> Path:
    """Add what was found to the corpus."""
    file = CORPUS / target / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
    file.write_bytes(data)
    return file
