"""Test copies of the project without its add-ons: what is left must pass.

    python scripts/without_add_ons.py           the default suite without all add-ons; without one of them, the tests
                                                of the others and of the command
    python scripts/without_add_ons.py --whole   the default suite each time

A copy contains the committed and the changed files, except the folder of the add-on and the folder of its tests. It has
its own metadata of the package, without the commands of the add-on. Nothing is imported from the original files.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADD_ONS = ("taskq_dashboard", "taskq_exporter", "taskq_migrate", "taskq_terminal")


def main() -> int:
    """Run the tests of each copy. Return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="run the default suite without each add-on")
    parser.add_argument("--only", choices=(*ADD_ONS, "all"), help="try only the copy without this add-on")
    parser.add_argument("--jobs", default="2", metavar="N", help="test processes at the same time (default: 2)")
    options = parser.parse_args()
    failed = []
    for name in ("all", *ADD_ONS):
        if options.only in (None, name):
            removed = ADD_ONS if name == "all" else (name,)
            tests = [] if options.whole or name == "all" else tests_beside(name)
            print(f"--- without {name}", flush=True)
            if run(removed, tests, jobs=options.jobs):
                failed.append(name)
    if failed:
        print(f"--- FAILED without {', '.join(failed)}")
    return 1 if failed else 0


def tests_beside(name: str) -> list[str]:
    """Return the folders of the tests that can be affected if one add-on is missing and the others are not."""
    return [f"tests/{other}" for other in ADD_ONS if other != name] + ["tests/taskq_core/cli"]


def run(removed: tuple[str, ...], tests: list[str], *, jobs: str) -> int:
    """Run tests in a copy without some packages. Return the exit status of pytest."""
    with tempfile.TemporaryDirectory(prefix="taskq-without-") as folder:
        copy = Path(folder)
        listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        left_out = tuple(f"{parent}{name}/" for name in removed for parent in ("", "tests/"))
        for file in files:
            if file and not file.startswith(left_out) and (ROOT / file).is_file():
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, copy / file)
        write_metadata(copy, removed)
        environment = {**os.environ, "PYTHONPATH": folder}
        command = [sys.executable, "-m", "pytest", "-q", "-n", jobs, "-p", "no:cacheprovider", *tests]
        return subprocess.run(command, cwd=copy, env=environment, check=False).returncode


def write_metadata(copy: Path, removed: tuple[str, ...]) -> None:
    """Write metadata without the commands of removed packages, and a module that hides the original files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = copy / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *[f"{name} = {target}" for name, target in points.items()]]
    kept = [line for line in lines if not any(f"= {package}." in line for package in removed)]
    (folder / "entry_points.txt").write_text("\n".join(kept) + "\n")
    (copy / "sitecustomize.py").write_text(
        f"import sys\n\nsys.path[:] = [each for each in sys.path if each != {str(ROOT)!r}]\n"
    )


if __name__ == "__main__":
    sys.exit(main())
