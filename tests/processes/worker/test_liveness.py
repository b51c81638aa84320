"""Test the detection of ended processes with real processes."""

import subprocess
import sys

import pytest

from taskq_core.worker.liveness import hold, is_held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux offers the facts")


def test_a_lock_is_held_until_all_processes_that_inherit_it_have_ended() -> None:
    assert not is_held("a" * 16)
    held = hold("a" * 16)
    assert held is not None
    assert hold("a" * 16) is None, "the same lock was taken twice"

    with subprocess.Popen(["sleep", "60"], pass_fds=[held.fileno()]) as heir:
        held.close()
        assert is_held("a" * 16)
        heir.kill()
    assert not is_held("a" * 16)
