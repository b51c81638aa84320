"""The corpora: small input files in `corpus/<target>/`. Tests run all of them. The fuzzer adds inputs that fail."""

import hashlib
import tracemalloc
from pathlib import Path

from tests.model.fuzz.pages import PAGE_TARGETS
from tests.model.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
ALL = {**TARGETS, **PAGE_TARGETS}
SPARE_BYTES = 1 << 20
"""Memory that a target may use, in addition to `BYTES_PER_BYTE`."""
PAGE_BYTES = 64 << 20
"""The same for a page, because its template may have to be compiled."""
BYTES_PER_BYTE = 200
"""Memory that a target may use for each byte of input."""


def corpus(target: str) -> list[Path]:
    """Return the input files of a target."""
    return sorted((CORPUS / target).iterdir())


def run(target: str, data: bytes) -> None:
    """Run a target and check its peak memory.

    Raises:
        AssertionError: The target used too much memory, or one of its checks failed.
    """
    tracemalloc.start()
    try:
        ALL[target](data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    most = (PAGE_BYTES if target in PAGE_TARGETS else SPARE_BYTES) + BYTES_PER_BYTE * len(data)
    assert peak <= most, f"{peak} bytes of memory for {len(data)} bytes of input, at most {most} are allowed"


def add_to_corpus(target: str, data: bytes) -> Path:
    """Add an input to the corpus of a target."""
    file = CORPUS / target / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
    file.write_bytes(data)
    return file
