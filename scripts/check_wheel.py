"""Build the wheel and the sdist, check their contents, install the wheel into a clean environment, and use it there.

1. Build both twice, and once more from the sdist. All builds must have the same bytes.
2. Import the modules of each extra while only the packages that this extra requires are visible.
3. Use all extras together from end to end. On the oldest supported Python, each direct dependency has the oldest
   version that `pyproject.toml` allows, so that a lower bound which is too low fails here. On other Pythons, each has
   its newest version.

    python scripts/check_wheel.py                           run all these checks
    python scripts/check_wheel.py --tests tests/taskq_core  run these tests with the oldest versions (oldest Python
    only)
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "taskq_core",
    "taskq_dashboard",
    "taskq_django",
    "taskq_exporter",
    "taskq_fastapi",
    "taskq_migrate",
    "taskq_pydantic_ai",
    "taskq_sqlalchemy",
    "taskq_terminal",
)
EXTRAS = "django,fastapi,dashboard,dash,sqlalchemy,otel,embedded,exporter"
KEPT = {".py", ".pyi", ".lua", ".proto", ".html", ".css", ".tcss", ".js", ".svg", ".txt", ".po", ".mo", ".typed"}
"""Suffixes of the files that belong in the wheel."""

ALONE = Path(__file__).with_name("import_alone.py")
SMOKE = Path(__file__).with_name("smoke.py")
SDIST = (
    "LICENSE",
    "README.md",
    "README.zh-CN.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "pyproject.toml",
    "PKG-INFO",
)
"""Files outside of the packages that belong in the sdist."""
IMPORTS = {
    "": "taskq_core, taskq_core.cli.command, taskq_core.worker, taskq_core.inspector, taskq_core.scheduler",
    "django": "taskq_django, taskq_django.testing, taskq_django.mail",
    "fastapi": "taskq_fastapi, taskq_fastapi.api",
    "dashboard": "taskq_dashboard, taskq_dashboard.serving, uvicorn",
    "dash": "taskq_terminal.app",
    "sqlalchemy": "taskq_sqlalchemy",
    "pydantic-ai": "taskq_pydantic_ai",
    "otel": "opentelemetry.sdk.trace, opentelemetry.exporter.otlp.proto.http, taskq_core.telemetry.configure",
    "embedded": "taskq_core.broker.embedded",
    "exporter": "taskq_exporter, taskq_exporter.command",
    "migrate": "taskq_migrate",
    "testing": "taskq_core.testing, fakeredis",
}
"""Modules to import with only the requirements of an extra, by extra. "": only the requirements of the core."""


def main() -> int:
    """Run the checks. Print the problems, and return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", nargs=argparse.REMAINDER, help="arguments of pytest")
    options = parser.parse_args()
    if options.tests is not None:
        return run_tests(options.tests)
    with tempfile.TemporaryDirectory(prefix="taskq-wheel-") as name:
        folder = Path(name)
        python = make_environment(folder / "venv")
        install(python, *pyproject()["build-system"]["requires"])
        wheel, sdist = build(python, ROOT, folder / "first")
        problems = [
            *unknown_extras(),
            *check_contents(wheel),
            *check_sdist_contents(sdist),
            *check_builds(python, wheel, sdist, folder),
        ]
        if problems:
            print("\n".join(problems))
            return 1
        is_newest = not bounds()
        install(python, f"{wheel}[{f'{EXTRAS},migrate,pydantic-ai,testing' if is_newest else EXTRAS}]", *bounds())
        if is_newest:
            for extra, modules in IMPORTS.items():
                call(python, "-W", "error::ImportWarning", ALONE, extra, modules, cwd=folder)
        call(python, SMOKE, cwd=folder)  # in another folder, so that Python imports nothing from the source tree
    return 0


def run_tests(arguments: list[str]) -> int:
    """Run tests from the source tree with the oldest allowed version of each direct dependency. Return pytest's status.

    These old versions may raise warnings about newer versions of their own dependencies. Such warnings are shown, but
    they do not fail the tests.
    """
    if not bounds():
        print(
            "tests with the oldest versions need the oldest supported Python: run this script with it", file=sys.stderr
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="taskq-lowest-") as name:
        python = make_environment(Path(name) / "venv")
        oldest = [*bounds(), *lower_bounds(pyproject()["project"]["optional-dependencies"]["testing"])]
        install(python, "-e", f"{ROOT}[{EXTRAS},testing]", "--group", "test", *oldest)
        command = [str(python), "-m", "pytest", "-q", "-W", "default::DeprecationWarning", *arguments]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


def unknown_extras() -> list[str]:
    """Return the extras of `pyproject.toml` that are missing in `IMPORTS`, and the other way round."""
    extras = set(pyproject()["project"]["optional-dependencies"]) - {"all", "django-tasks"}
    known = set(IMPORTS) - {""}
    return [f"IMPORTS and the extras of pyproject.toml differ: {name}" for name in sorted(extras ^ known)]


def build(python: Path, source: Path, folder: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist of a source tree into a folder. Return the paths of both."""
    call(python, "-m", "hatchling", "build", "-d", folder, cwd=source)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def check_builds(python: Path, wheel: Path, sdist: Path, folder: Path) -> list[str]:
    """Build again, and from the sdist. Return the problems: files whose bytes differ from the first build."""
    again = build(python, ROOT, folder / "second")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.3 and older have no filter
        archive.extractall(folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    from_sdist = build(python, unpacked, folder / "third")
    return [
        f"{other.name} has different bytes when it is built {how}"
        for how, others in (("again", again), ("from the sdist", from_sdist))
        for one, other in zip((wheel, sdist), others, strict=True)
        if one.read_bytes() != other.read_bytes()
    ]


def check_contents(wheel: Path) -> list[str]:
    """Return the problems of a wheel: missing files, and files that do not belong in it."""
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
    if not source:  # the source tree is not a git checkout
        source = {str(p.relative_to(ROOT)) for each in PACKAGES for p in (ROOT / each).rglob("*") if p.suffix in KEPT}
    needed = {f"{package}/py.typed" for package in PACKAGES} | {
        "taskq_core/broker/lua/enqueue.lua",
        "taskq_django/locale/zh_Hans/LC_MESSAGES/django.mo",
        "taskq_dashboard/locale/zh_Hans/LC_MESSAGES/dashboard.mo",
    }
    problems = [f"missing in the wheel: {name}" for name in sorted((source | needed) - inside)]
    problems += [
        f"this file does not belong in the wheel: {name}"
        for name in sorted(inside)
        if name.split("/")[0] not in PACKAGES
    ]
    problems += [f"missing in the wheel's metadata: {name}" for name in ("LICENSE", "METADATA") if name not in info]
    return problems


def check_sdist_contents(sdist: Path) -> list[str]:
    """Return the problems of an sdist: missing files, and files that do not belong in it."""
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    problems = [f"missing in the sdist: {name}" for name in SDIST if name not in inside]
    wanted = {*PACKAGES, *SDIST, ".gitignore"}
    problems += [
        f"this file does not belong in the sdist: {name}" for name in sorted(inside) if name.split("/")[0] not in wanted
    ]
    return problems


def make_environment(folder: Path) -> Path:
    """Create a virtual environment with this Python. Return the path of its interpreter."""
    venv.EnvBuilder(with_pip=False).create(folder)
    return folder / "bin" / "python"


def install(python: Path, *arguments: object) -> None:
    """Install packages, wheels only, into an environment with the pip of this Python."""
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--only-binary", ":all:", *arguments)


def bounds() -> list[str]:
    """Return requirements for the oldest version of each direct dependency. [] unless this Python is the oldest one."""
    project = pyproject()["project"]
    oldest = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    if sys.version_info[:2] != oldest:
        return []
    wanted = list(project["dependencies"])
    for extra in EXTRAS.split(","):
        wanted += project["optional-dependencies"][extra]
    return lower_bounds(wanted)


def lower_bounds(requirements: list[str]) -> list[str]:
    """Return requirements for exactly the oldest version that each of these requirements allows."""
    return [re.sub(">=", "==", requirement, count=1) for requirement in requirements]


def pyproject() -> dict[str, Any]:
    """Return the content of `pyproject.toml`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def call(*command: object, cwd: Path = ROOT) -> None:
    """Run a command and print its output. If it fails, exit with its status."""
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
