"""A process has ended only if the kernel proves it: no doubtful case counts as a proof."""

import os
import sys
from pathlib import Path

import pytest

from taskq_core.worker.liveness import Host, LocalWorker, ProcessId

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux offers the facts")

OTHER = ProcessId(4711, 500)
"""A process of the made-up host."""


class MadeUp:
    """A host with a procfs in a folder."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.write("sys/kernel/random/boot_id", "boot-1")
        self.write("self/status", f"Name:\tpython\nNSpid:\t{os.getpid()}\n")
        for kind, number in {"pid": 1, "time": 2, "net": 3}.items():
            self.link(kind, number)

    def write(self, path: str, text: str) -> None:
        (self.proc / path).parent.mkdir(parents=True, exist_ok=True)
        (self.proc / path).write_text(text)

    def link(self, kind: str, number: int) -> None:
        path = self.proc / "self/ns" / kind
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(f"{kind}:[{number}]")

    def stat(self, process: ProcessId, state: str = "S", threads: int = 1) -> None:
        between = " 0" * 14
        self.write(
            f"{process.pid}/stat", f"{process.pid} (a ) Z 1) {state}{between} 20 0 {threads} 0 {process.started} 0"
        )

    def host(self, error: type[OSError] | None = None, name: str = "web-1") -> Host:
        def kill(pid: int, number: int) -> None:
            assert number == 0
            if error is not None:
                raise error

        return Host(self.proc, kill, name)


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path)


class TestPlace:
    def test_it_is_the_same_for_all_processes_of_a_namespace(self, made_up: MadeUp) -> None:
        assert made_up.host().place() == made_up.host().place() != ""

    @pytest.mark.parametrize("kind", ["pid", "time", "net"])
    def test_another_namespace_is_another_place(self, made_up: MadeUp, kind: str) -> None:
        place = made_up.host().place()

        made_up.link(kind, 99)

        assert made_up.host().place() not in ("", place)

    def test_another_boot_or_host_name_is_another_place(self, made_up: MadeUp) -> None:
        place = made_up.host().place()

        assert made_up.host(name="web-2").place() != place
        made_up.write("sys/kernel/random/boot_id", "boot-2")
        assert made_up.host().place() != place

    def test_it_is_unknown_where_procfs_shows_another_namespace(self, made_up: MadeUp) -> None:
        """There, our PIDs are those of other processes."""
        made_up.write("self/status", f"NSpid:\t{os.getpid()}\t1\n")

        assert made_up.host().place() == ""

    def test_it_is_unknown_without_procfs(self, tmp_path: Path) -> None:
        host = Host(tmp_path / "absent")

        assert host.place() == ""
        assert host.describe(has_supervisor=False) is None


class TestEnd:
    def test_a_process_that_is_absent_has_ended(self, made_up: MadeUp) -> None:
        assert made_up.host(ProcessLookupError).has_ended(OTHER)

    def test_a_pid_with_another_start_time_is_another_process(self, made_up: MadeUp) -> None:
        made_up.stat(ProcessId(OTHER.pid, 501))

        assert made_up.host().has_ended(OTHER)

    def test_a_process_that_procfs_hides_may_be_running(self, made_up: MadeUp) -> None:
        """It is mounted with hidepid, and the process is of another user."""
        assert not made_up.host(PermissionError).has_ended(OTHER)

    def test_a_zombie_has_ended_once_its_last_thread_has(self, made_up: MadeUp) -> None:
        made_up.stat(OTHER, "Z", threads=2)
        assert not made_up.host().has_ended(OTHER)

        made_up.stat(OTHER, "Z")
        assert made_up.host().has_ended(OTHER)


def test_a_record_is_read_as_it_was_written() -> None:
    worker = Host().describe(has_supervisor=True)

    assert worker is not None
    assert (worker.process.pid, worker.supervisor and worker.supervisor.pid) == (os.getpid(), os.getppid())
    assert LocalWorker.decode(worker.encode()) == worker


def test_a_record_of_no_process_is_not_read(subtests: pytest.Subtests) -> None:
    for pid in ["0", "-1", "true", "1.5", '"1"', "99999999999"]:
        with subtests.test(pid=pid):
            assert (
                LocalWorker.decode(b'{"process": {"pid": %s, "started": 1}, "supervisor": null}' % pid.encode()) is None
            )
