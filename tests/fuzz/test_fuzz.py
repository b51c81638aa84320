"""What comes from elsewhere is read and survives, or is refused with a typed error, whatever it is.

The corpora are run every time, and some changes of them, the same each time. More: see `tests/fuzz/__main__.py`.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.corpora import ALL, CORPUS, corpus, run
from tests.fuzz.mutation import mutate
from tests.fuzz.targets import TARGETS

LARGEST_FILE = 8192


def test_every_corpus_has_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == ALL.keys()
    assert all(len(corpus(target)) >= 3 for target in ALL)
    assert all(file.stat().st_size <= LARGEST_FILE for target in ALL for file in corpus(target))


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_in_the_corpus(target: str) -> None:
    for file in corpus(target):
        try:
            run(target, file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file.relative_to(CORPUS)}: {error!a}") from None


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_like_it(target: str) -> None:
    pool = [file.read_bytes() for file in corpus(target)]

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(data=st.sampled_from(pool), draw=st.randoms(use_true_random=False))
    def explore(data: bytes, draw: random.Random) -> None:
        run(target, mutate(data, pool, draw))

    explore()


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_like_nothing(target: str) -> None:
    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(data=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
    def explore(data: bytes) -> None:
        run(target, data)

    explore()
