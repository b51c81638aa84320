"""Any input is either read and written without a change, or refused with a typed error.

The tests run the corpora, some mutations of them, and random bytes, the same each time. For longer fuzzing see
`tests/model/fuzz/__main__.py`.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.fuzz.corpora import CORPUS, corpus, run
from tests.model.fuzz.mutation import mutate
from tests.model.fuzz.targets import TARGETS

EXAMPLES = [40, pytest.param(2000, marks=pytest.mark.nightly)]


def test_inputs_of_the_corpus() -> None:
    for target in TARGETS:
        for file in corpus(target):
            try:
                run(target, file.read_bytes())
            except Exception as error:
                raise AssertionError(f"{file.relative_to(CORPUS)}: {error!a}") from None


@pytest.mark.timeout(1800)  # for the nightly number of examples
@pytest.mark.parametrize("examples", EXAMPLES)
def test_mutations_of_the_corpus(examples: int, subtests: pytest.Subtests) -> None:
    for target in TARGETS:
        with subtests.test(target):
            run_mutations(target, examples)


def run_mutations(target: str, examples: int) -> None:
    pool = [file.read_bytes() for file in corpus(target)]

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(data=st.sampled_from(pool), draw=st.randoms(use_true_random=False))
    def explore(data: bytes, draw: random.Random) -> None:
        run(target, mutate(data, pool, draw))

    explore()


@pytest.mark.timeout(1800)  # for the nightly number of examples
@pytest.mark.parametrize("examples", EXAMPLES)
def test_random_bytes(examples: int, subtests: pytest.Subtests) -> None:
    for target in TARGETS:
        with subtests.test(target):
            run_random_bytes(target, examples // 2)


def run_random_bytes(target: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(data=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
    def explore(data: bytes) -> None:
        run(target, data)

    explore()
