"""Test the format of a queue's sample in Redis."""

from hypothesis import given
from hypothesis import strategies as st

from taskq_core.wire.samples import LEVELS, SAMPLE_S, QueueSample
from tests.rows import rows

WHOLE = st.integers(0, 2**63 - 1)
OPTIONAL = {"latency_ms", "memory_kib"}
NAMES = [name for name in QueueSample.__struct_fields__ if name != "at_s"]

SAMPLES = st.builds(
    QueueSample,
    at_s=st.integers(0, 2**32 - 1),
    **{name: st.none() | WHOLE if name in OPTIONAL else WHOLE for name in NAMES},
)


@given(SAMPLES)
def test_stored_samples_are_read_back(sample: QueueSample) -> None:
    assert QueueSample.decode(sample.encode()) == sample


def test_the_stored_bytes_stay_as_they_are() -> None:
    """Workers of two releases share them."""
    sample = QueueSample(
        at_s=2_000_000_000,
        active=3,
        pending=300,
        retry=1,
        latency_ms=1500,
        processed=70_000,
        failed=2,
        memory_kib=0,
        busy=3,
        slots=10,
        is_paused=1,
    )

    assert sample.encode().hex() == "017735940003ac0200000100" + "00" + "dd0b" + "f0a204" + "02" + "01" + "030a01"
    assert QueueSample(at_s=1).encode().hex() == "0100000001" + "00" * 14


def test_a_later_release_may_add_numbers() -> None:
    sample = QueueSample(at_s=5, pending=7)

    assert QueueSample.decode(sample.encode() + b"\x09") == sample
    assert QueueSample.decode(sample.encode()[:-5]) == sample, "and an earlier one wrote fewer"


@rows("data", [b"", b"\x01\x00", b"\x02" + QueueSample(at_s=5).encode()[1:], b"\x01\0\0\0\x05\x80"])
def test_invalid_samples_are_ignored(data: bytes) -> None:
    assert QueueSample.decode(data) is None


@given(st.binary(max_size=40))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    found = QueueSample.decode(data)

    assert found is None or found.at_s >= 0


def test_a_negative_number_is_stored_as_zero() -> None:
    """An example is a counter that was set to a negative number by hand."""
    assert QueueSample.decode(QueueSample(at_s=5, processed=-3).encode()) == QueueSample(at_s=5)


def test_coarser_resolutions_reach_further() -> None:
    assert SAMPLE_S == 10
    spans = [level.span_s for level in LEVELS]
    assert spans == sorted(spans)
    for hours, level in zip((1, 24, 8 * 24, 30 * 24), LEVELS, strict=True):
        assert level.span_s >= hours * 3600
