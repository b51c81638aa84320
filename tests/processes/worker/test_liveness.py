"""Whether a real process has ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskq_core.worker.liveness import Host, ProcessId, hold, is_held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux offers the facts")


def test_a_name_is_held_until_all_that_inherit_it_have_ended() -> None:
    assert not is_held("a" * 16)
    held = hold("a" * 16)
    assert held is not None
    assert hold("a" * 16) is None, "it is taken"

    with subprocess.Popen(["sleep", "60"], pass_fds=[held.fileno()]) as heir:
        held.close()
        assert is_held("a" * 16)
        heir.kill()
    assert not is_held("a" * 16)


class TestEnd:
    def test_a_real_process(self) -> None:
        """It is running while it is stopped, and has ended when it was killed, before its parent has asked for it."""
        host = Host()
        with subprocess.Popen(["sleep", "60"]) as process:
            line = Path(f"/proc/{process.pid}/stat").read_text()
            known = ProcessId(process.pid, int(line.rpartition(")")[2].split()[19]))
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert not host.has_ended(known)

            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert host.has_ended(known)
        assert host.has_ended(known)
