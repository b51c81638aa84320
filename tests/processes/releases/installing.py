"""Find a release by its tag in a git repository, and install it into a separate environment."""

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

Version = tuple[int, ...]


def version_of(text: str) -> Version | None:
    """Return the version of a tag in a comparable form, or None for release candidates and other tags."""
    found = re.fullmatch(r"v?(\d+(?:\.\d+)*)", text)
    return None if found is None else tuple(map(int, found[1].split(".")))


def previous_release(repository: Path, current: str) -> str | None:
    """Return the newest tag `v*` that is older than a version, or None without one."""
    now = version_of(current)
    assert now is not None, current
    done = subprocess.run(
        ("git", "tag", "--list", "v*"), cwd=repository, capture_output=True, text=True, check=False
    )  # fails outside a repository, for example in an unpacked archive
    tags = {tag: found for tag in done.stdout.split() if (found := version_of(tag)) is not None and found < now}
    return max(tags, key=lambda tag: tags[tag], default=None)


def install(repository: Path, tag: str, folder: Path, *, with_dependencies: bool) -> Path:
    """Install a release into a separate environment and return its interpreter.

    Args:
        repository: Git repository with the tag.
        tag: Name of the tag.
        folder: An empty folder for the environment.
        with_dependencies: Install the dependencies of the release. Otherwise it uses those of this environment.
    """
    source = folder / "source"
    packed = subprocess.run(("git", "archive", tag), cwd=repository, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # missing in Python 3.11.3 and older
        archive.extractall(source)
    environment = folder / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    if not with_dependencies:
        (site,) = environment.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ["install", "--quiet", "--disable-pip-version-check", *([] if with_dependencies else ["--no-deps"])]
    done = subprocess.run(
        (sys.executable, "-m", "pip", "--python", str(python), *words, str(source)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return python
