"""Programs that Debian has and that need not be here: each is found, or its tests are skipped; in CI they fail."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from taskq_core.cli.processes import supervisor_config
from taskq_core.settings import Settings
from taskq_core.worker import WorkerConfig

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"


def tool(name: str) -> str:
    """Return the path of a program; skip the test where it is not installed, unless this is CI."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed: apt install {name}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


def run(*command: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output. If it fails, fail with its output. `env` is added to the environment."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def longest_end_s(shutdown_grace_s: float, *, has_lifespans: bool = False) -> float:
    """Seconds after SIGTERM in which a worker of several processes has ended."""
    config = WorkerConfig(shutdown_grace=shutdown_grace_s)
    supervision = supervisor_config(Settings(), {"processes": "2"}, config, has_lifespans=has_lifespans)
    assert supervision is not None
    return supervision.ends_within_s
