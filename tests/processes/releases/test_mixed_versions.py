"""Test that workers and producers of the previous release and this one share a queue, as during a deploy."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.processes.releases.installing import install, previous_release
from tests.processes.releases.program import COUNT
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
CURRENT = version("taskq-asynq")
PREVIOUS = previous_release(ROOT, CURRENT)


@contextmanager
def worker(python: Path, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a worker of the release in a Python environment. It must stop with status 0."""
    with (folder / f"worker-{os.getpid()}.log").open("a+") as log:
        process = subprocess.Popen(
            (str(python), "-m", "taskq_core", "worker", "program:taskq", "--concurrency", "5"),
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            yield
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
            log.seek(0)
            assert status == 0, log.read()
        finally:
            process.kill()
            process.wait()


def share_a_queue(redis: RedisServer, old: Path, folder: Path) -> list[dict[str, Any]]:
    """Run a worker and a producer of each release on one queue, and return the results of the producers."""
    shutil.copy(Path(__file__).with_name("program.py"), folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "PYTHON"))}
    environment |= {"TASKQ_URL": redis.unix_url, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    pythons = (old, Path(sys.executable))
    results = []
    with worker(pythons[0], folder, environment), worker(pythons[1], folder, environment):
        for python in pythons:  # one after the other: their tasks wait until both workers have taken some
            done = subprocess.run(
                (str(python), "program.py"),
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            results.append(json.loads(done.stdout))
    return results


def assert_shared(documents: list[dict[str, Any]], old: str) -> None:
    """Check that no task was lost, and that each release ran tasks of both."""
    assert [each["release"] for each in documents] == [old, CURRENT]
    for each in documents:
        assert each["numbers"] == list(range(COUNT))
        assert each["by"] == sorted([old, CURRENT])
        assert each["retried"] == list(range(COUNT // 10))
        assert (each["members"], each["line"]) == (210, 10)


@pytest.mark.skipif(
    PREVIOUS is None, reason=f"no tag v* in this repository is older than {CURRENT}: nothing to mix with"
)
def test_the_previous_release_and_this_one_share_a_queue(redis_server: RedisServer, tmp_path: Path) -> None:
    assert PREVIOUS is not None
    old = install(ROOT, PREVIOUS, tmp_path, with_dependencies=True)

    assert_shared(share_a_queue(redis_server, old, tmp_path), PREVIOUS.removeprefix("v"))


def git(folder: Path, *words: str) -> None:
    names = ("-c", "user.name=taskq", "-c", "user.email=taskq@example.invalid", "-c", "tag.gpgSign=false")
    subprocess.run(("git", *names, *words), cwd=folder, check=True, capture_output=True)


def test_an_artificial_release_shares_a_queue(redis_server: RedisServer, tmp_path: Path) -> None:
    """This tests the test above: it finds, installs and runs a tag in a clone of this repository."""
    if subprocess.run(("git", "rev-parse", "HEAD"), cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("this is no git repository")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--no-tags", "--depth", "1", f"file://{ROOT}", str(clone))
    project = clone / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    for made_up in ("0.0.8", "0.0.9"):
        project.write_text(text.replace(f'version = "{CURRENT}"', f'version = "{made_up}"'), encoding="utf-8")
        git(clone, "commit", "--quiet", "--no-verify", "-am", made_up)
        git(clone, "tag", f"v{made_up}")
    git(clone, "tag", f"v{CURRENT}")

    found = previous_release(clone, CURRENT)
    assert found == "v0.0.9"
    old = install(clone, found, tmp_path / "old", with_dependencies=False)

    assert_shared(share_a_queue(redis_server, old, tmp_path), "0.0.9")
