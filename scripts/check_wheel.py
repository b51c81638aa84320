"""Build the wheel, look into it, install it into a clean environment and use it there.

On the oldest supported Python every direct dependency is installed in the oldest version that `pyproject.toml` allows,
so a lower bound that does not work shows here; on the others in the newest.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("taskq_core", "taskq_django", "taskq_fastapi")
EXTRAS = "django,fastapi,dashboard,sqlalchemy,otel,embedded"
KEPT = {".py", ".pyi", ".lua", ".proto", ".html", ".css", ".js", ".svg", ".txt", ".po", ".mo", ".typed"}
"""Endings of files that belong into the wheel."""

SMOKE = Path(__file__).with_name("smoke.py")


def main() -> int:
    """Check the wheel; return 1 and say what is wrong if anything is."""
    with tempfile.TemporaryDirectory(prefix="taskq-wheel-") as name:
        folder = Path(name)
        call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        problems = list(look_into(wheel))
        if problems:
            print("\n".join(problems))
            return 1
        python = make_environment(folder / "venv")
        call(python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", f"{wheel}[{EXTRAS}]", *bounds())
        call(python, SMOKE, cwd=folder)  # from another folder, so that nothing comes from the source tree
    return 0


def look_into(wheel: Path) -> list[str]:
    """Return what is missing in the wheel, and what is in it but should not be."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        info = {name.rpartition("/")[2] for name in archive.namelist() if ".dist-info/" in name}
    files = subprocess.run(
        ("git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    source = {name for name in files if Path(name).suffix in KEPT or name.endswith("py.typed")}
    if not source:  # not a git checkout
        source = {str(p.relative_to(ROOT)) for each in PACKAGES for p in (ROOT / each).rglob("*") if p.suffix in KEPT}
    needed = {f"{package}/py.typed" for package in PACKAGES} | {"taskq_core/broker/lua/enqueue.lua"}
    problems = [f"missing in the wheel: {name}" for name in sorted((source | needed) - inside)]
    problems += [f"not wanted in the wheel: {name}" for name in sorted(inside) if name.split("/")[0] not in PACKAGES]
    problems += [f"missing in the wheel's metadata: {name}" for name in ("LICENSE", "METADATA") if name not in info]
    return problems


def make_environment(folder: Path) -> Path:
    """Make a virtual environment with this Python and its pip, and return its interpreter."""
    venv.EnvBuilder(with_pip=True).create(folder)
    python = folder / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1")
    return python


def bounds() -> list[str]:
    """Return the lower bounds of direct dependencies as exact requirements, on the oldest supported Python only."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    if sys.version_info[:2] != oldest:
        return []
    wanted = list(project["dependencies"])
    for extra in EXTRAS.split(","):
        wanted += project["optional-dependencies"][extra]
    return [re.sub(">=", "==", requirement, count=1) for requirement in wanted]


def call(*command: object, cwd: Path = ROOT) -> None:
    """Run a command; end this program with its status and output if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.stdout.strip():
        print(done.stdout.rstrip())
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
