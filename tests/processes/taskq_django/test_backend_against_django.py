"""Run Django's tests of its immediate task backend with taskq's backend and `EAGER`.

The tests are in Django's source distribution of the installed version, which is downloaded. Tests that assert missing
features of Django's backend are skipped.
"""

import os
import re
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import django
import pytest

pytestmark = pytest.mark.skipif(django.VERSION < (6, 0), reason="Django has no tasks of its own before 6.0")

SUITE = "tasks.test_immediate_backend"
THEIRS = "django.tasks.backends.immediate.ImmediateBackend"
OF_THAT_BACKEND = {
    "test_using_correct_backend": "it asserts that class",
    "test_cannot_get_result": "ours keeps results",
    "test_cannot_refresh_result": "ours keeps results",
    "test_cannot_pass_run_after": "ours puts a start off",
}
SETTINGS = """
SECRET_KEY = "x"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "taskq_django"]
USE_TZ = False
TASKQ = {"URL": "redis://127.0.0.1:1", "EAGER": True, "ENQUEUE": "immediate"}
"""


def source_of_django(folder: Path) -> Path:
    """Fetch Django's source distribution with the pip configuration of this machine."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "django"]
    command += ["--retries", "5", "--dest", str(folder), f"django=={django.get_version()}"]
    fetched = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    found = list(folder.glob("*.tar.gz"))
    if not found and not os.environ.get("CI"):
        pytest.skip(f"Django's source cannot be fetched here: {fetched.stderr.strip()[-200:]}")
    assert found, fetched.stderr
    return found[0]


def test_djangos_tests_of_a_backend_pass(tmp_path: Path) -> None:
    with tarfile.open(source_of_django(tmp_path)) as archive:
        for member in archive.getmembers():
            parts = Path(member.name).parts
            if member.isfile() and parts[1:3] == ("tests", "tasks") and len(parts) == 4:
                content = archive.extractfile(member)
                assert content is not None
                target = tmp_path / "tasks" / parts[3]
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content.read().replace(THEIRS.encode(), b"taskq_django.TaskQBackend"))
    suite = tmp_path / "tasks" / f"{SUITE.partition('.')[2]}.py"
    # Imports of that name are not replaced, so that the test of the class itself can be loaded.
    assert suite.read_text().count('"taskq_django.TaskQBackend"') >= 3
    (tmp_path / "suite_settings.py").write_text(textwrap.dedent(SETTINGS))
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)

    ran = subprocess.run(
        [sys.executable, "-m", "django", "test", SUITE, "--settings=suite_settings", "-v", "2"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    failed = set(re.findall(r"^(?:FAIL|ERROR): (\w+)", ran.stderr, re.MULTILINE))
    count = re.search(r"^Ran (\d+) tests", ran.stderr, re.MULTILINE)
    assert failed == set(OF_THAT_BACKEND), ran.stderr[-5000:]
    assert count is not None
    assert int(count[1]) > 15, ran.stderr[-2000:]
