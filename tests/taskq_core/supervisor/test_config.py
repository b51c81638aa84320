"""How many processes, when each is replaced, and how long a place stays empty: pure rules."""

import os
from pathlib import Path

import pytest

from taskq_core import ConfigurationError, Settings
from taskq_core.cli.processes import refuse_processes, supervisor_config
from taskq_core.settings import memory_bytes, values_from_environ
from taskq_core.supervisor import Limits, SupervisorConfig, cores, usable_cores
from taskq_core.supervisor.config import LONGEST_PAUSE_S, STEADY_S, Pause
from taskq_core.worker import WorkerConfig


def test_amounts_of_memory_are_parsed(subtests: pytest.Subtests) -> None:
    for text, size in [
        ("300MB", 300_000_000),
        ("300 mb", 300_000_000),
        ("1.5GiB", 1_610_612_736),
        ("20000KB", 20_000_000),
    ]:
        with subtests.test(text=text, size=size):
            assert memory_bytes("max_memory", text) == size


def test_an_invalid_or_too_small_amount_of_memory_is_refused(subtests: pytest.Subtests) -> None:
    for value in ["", "MB", "300", "300 MBit", "-1GB", "1e9", "15MiB", "2000000TB", True, 1.5, None]:
        with subtests.test(value=value), pytest.raises(ConfigurationError, match="--max-memory"):
            memory_bytes("--max-memory", value)


def test_an_invalid_number_of_processes_is_refused(subtests: pytest.Subtests) -> None:
    for processes in ["0", "-1", "513", "many", "", "1.5", "AUTO!"]:
        with subtests.test(processes=processes), pytest.raises(ConfigurationError, match="--processes"):
            supervisor_config(Settings(), {"processes": processes}, WorkerConfig())


def test_an_invalid_number_of_processes_is_refused_in_settings(subtests: pytest.Subtests) -> None:
    for value in [0, -1, 513, "many", True, 1.5]:
        with subtests.test(value=value), pytest.raises(ConfigurationError, match="PROCESSES"):
            Settings(processes=value)  # type: ignore[arg-type]  # what is tested


def test_invalid_limits_are_refused_in_settings(subtests: pytest.Subtests) -> None:
    for settings in [{"max_tasks": 0}, {"max_memory": "300"}, {"max_memory": "much"}]:
        with subtests.test(settings=settings), pytest.raises(ConfigurationError, match="MAX_"):
            Settings(**settings)  # type: ignore[arg-type]  # what is tested


def test_the_environment_sets_processes_and_limits() -> None:
    environ = {"TASKQ_PROCESSES": "auto", "TASKQ_MAX_TASKS": "500", "TASKQ_MAX_MEMORY": "300MB"}

    settings = Settings(**values_from_environ(environ))

    assert (settings.processes, settings.max_tasks, settings.max_memory) == ("auto", 500, 300_000_000)


def test_one_process_without_limits_needs_no_supervisor() -> None:
    assert supervisor_config(Settings(), {}, WorkerConfig()) is None
    assert supervisor_config(Settings(processes=4), {"processes": "1"}, WorkerConfig()) is None


def test_one_process_with_limits_has_a_supervisor(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    """A signal has the same effect with `auto` on a machine with one core as on any other."""
    for options in [{"max_tasks": 100}, {"max_memory": "300MB"}, {"processes": "auto"}]:
        with subtests.test(options=options):
            monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)

            supervision = supervisor_config(Settings(), options, WorkerConfig())

            assert supervision is not None
            assert supervision.processes == 1


def test_options_override_settings() -> None:
    settings = Settings(processes=2, max_tasks=10, max_memory="20MB")

    supervision = supervisor_config(settings, {"processes": "3", "max_tasks": 5}, WorkerConfig(shutdown_grace=60))

    assert supervision is not None
    assert (supervision.processes, supervision.max_tasks, supervision.max_memory) == (3, 5, 20_000_000)
    assert supervision.span("ending") > 60, "what runs gets its grace before its process is killed"


def test_a_single_process_worker_refuses_process_options(subtests: pytest.Subtests) -> None:
    for name in ["processes", "max_tasks", "max_memory"]:
        option = f"--{name.replace('_', '-')}"
        with subtests.test(name=name), pytest.raises(ConfigurationError, match=f"--reload .* {option}$"):
            refuse_processes({name: "2"}, "--reload")


def test_auto_uses_the_number_of_available_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """A container or unit limited to 1.5 cores counts two, and so does its parent's limit."""
    for own, files, count in [
        ("0::/", {}, 8),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "1000 100000"}, 1),
        ("0::/", {"cpu.max": "what"}, 8),
        ("0::/system.slice/shop", {"system.slice/shop/cpu.max": "300000 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000", "cpu.max": "700000 100000"}, 2),
        ("4:cpu,cpuacct:/docker/1", {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("3:memory:/x\n4:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "100000", "cpu/x/cpu.cfs_period_us": "50000"}, 2),
    ]:
        with subtests.test(own=own, files=files, count=count):
            monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
            monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
            monkeypatch.setattr(cores, "_OWN", tmp_path / "own")
            (tmp_path / "own").write_text(own + "\n")
            for name, text in files.items():
                path = tmp_path / "groups" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)

            assert usable_cores() == count


def test_the_restart_delay_grows_with_consecutive_deaths_and_is_bounded() -> None:
    pause = Pause()

    pauses = [pause.after(0.1) for _ in range(20)]

    assert pauses[0] == 0
    assert 0.75 <= pauses[1] <= 1
    assert pauses[1] < pauses[2] < pauses[3] < pauses[4]
    assert 0.75 * LONGEST_PAUSE_S <= pauses[-1] <= LONGEST_PAUSE_S


def test_a_process_that_lived_long_is_replaced_at_once() -> None:
    pause = Pause()
    for _ in range(5):
        pause.after(0.1)

    assert pause.after(STEADY_S) == 0


def test_limits_are_jittered() -> None:
    """Processes that were started together are not replaced together; none takes more memory than it may."""
    drawn = [Limits.drawn(1000, 100_000_000) for _ in range(50)]

    tasks, memory = [each.tasks or 0 for each in drawn], [each.memory or 0 for each in drawn]
    assert len(set(tasks)) > 10
    assert 900 <= min(tasks) <= max(tasks) <= 1100
    assert 90_000_000 <= min(memory) <= max(memory) <= 100_000_000
    assert Limits.drawn(1, None).tasks == 1


def test_a_process_over_a_limit_is_replaced_with_the_reason(subtests: pytest.Subtests) -> None:
    for tasks, memory, why in [
        (9, 99, ""),
        (10, 0, "the process has run 10 tasks"),
        (1, 20_000_001, "the process uses 20 MB of memory"),
        (0, 20_000_001, ""),
    ]:
        with subtests.test(tasks=tasks, memory=memory, why=why):
            assert Limits(tasks=10, memory=20_000_000).reached(tasks, memory) == why


def test_a_process_without_limits_is_never_replaced() -> None:
    assert Limits().reached(10**9, 2**40) == ""


def test_an_invalid_configuration_is_refused(subtests: pytest.Subtests) -> None:
    for values in [{"processes": 0}, {"ending": -1}, {"health_port": 70_000}]:
        with subtests.test(values=values), pytest.raises(ConfigurationError):
            SupervisorConfig(**values)  # type: ignore[arg-type]  # what is tested
