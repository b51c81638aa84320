"""Check the files that lock the packages of the container image, or write them.

    python scripts/lock.py             check that the files fit pyproject.toml
    python scripts/lock.py --write     change what pyproject.toml requires, and keep all other versions
    python scripts/lock.py --upgrade   take the newest versions that pyproject.toml allows

The files contain a version and the hashes of each package. The Dockerfile installs nothing else.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "image"
UV = Path(sys.executable).with_name("uv")
PYTHON = "3.13"
"""Version of Python in the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """One file, and the parts of pyproject.toml that it locks."""

    name: str
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file in the repository."""
        return FOLDER / self.name


LOCKS = (
    Lock(name="requirements.txt", extras=("django", "fastapi", "dashboard", "otel", "exporter"), groups=("example",)),
    Lock(name="build-requirements.txt", groups=("build",)),
)


def compile_lock(lock: Lock, path: Path, *, upgrade: bool = False) -> None:
    """Write a file. Keep the versions that it contains, as far as pyproject.toml allows them."""
    source = ["pyproject.toml"] if lock.extras else []
    subprocess.run(
        [
            *(str(UV), "pip", "compile", "--quiet", "--no-config", *source),
            *(word for extra in lock.extras for word in ("--extra", extra)),
            *(word for group in lock.groups for word in ("--group", group)),
            *("--generate-hashes", "--no-annotate", "--python-version", PYTHON, "--python-platform", "linux"),
            *("--custom-compile-command", "python scripts/lock.py --write"),
            *(["--upgrade"] if upgrade else []),
            *("--output-file", str(path)),
        ],
        cwd=ROOT,
        check=True,
    )


def fits(lock: Lock) -> bool:
    """Return whether a file is what `--write` would write."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, lock.name)
        shutil.copy(lock.path, copy)
        compile_lock(lock, copy)
        return copy.read_text() == lock.path.read_text()


def main() -> int:
    """Check or write the files. Return 1 if one does not fit pyproject.toml."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--upgrade", action="store_true")
    options = parser.parse_args()
    if options.write or options.upgrade:
        for lock in LOCKS:
            compile_lock(lock, lock.path, upgrade=options.upgrade)
        return 0
    wrong = [str(lock.path.relative_to(ROOT)) for lock in LOCKS if not fits(lock)]
    for path in wrong:
        print(f"{path} does not fit pyproject.toml: run python scripts/lock.py --write")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
