"""`taskq worker --reload`: what counts as a change."""

import os
import sys
from pathlib import Path

import pytest

from taskq_core.cli.session import load_module
from taskq_core.worker.autoreload import FolderWatch, project_traceback


def write(path: Path, text: str = "", *, when: float | None = None) -> None:
    """Put a file in the place of another one at once, as editors do, changed in the second given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    if when is not None:
        os.utime(new, (when, when))
    new.replace(path)


class TestFolderWatch:
    def test_a_changed_new_or_deleted_python_file_causes_one_restart(self, tmp_path: Path) -> None:
        write(tmp_path / "shop/tasks.py", when=1)
        watch = FolderWatch(tmp_path)
        looks = [watch.must_restart()]
        write(tmp_path / "shop/tasks.py", when=2)
        looks += [watch.must_restart(), watch.must_restart()]
        write(tmp_path / "shop/orders/new.py")
        looks += [watch.must_restart(), watch.must_restart()]
        (tmp_path / "shop/tasks.py").unlink()
        looks += [watch.must_restart(), watch.must_restart()]

        assert looks == [False, True, False, True, False, True, False]

    @pytest.mark.parametrize(
        "name",
        ["notes.txt", ".#tasks.py", ".git/x.py", "node_modules/x.py", "a/__pycache__/x.py", "env/lib/x.py"],
    )
    def test_other_files_are_ignored(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / "env/pyvenv.cfg")
        watch = FolderWatch(tmp_path)
        write(tmp_path / name)

        assert not watch.must_restart()

    def test_a_dangling_link_is_ignored(self, tmp_path: Path) -> None:
        (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")

        assert not FolderWatch(tmp_path).must_restart()

    def test_a_file_that_changed_while_code_was_loaded_causes_one_restart(self, tmp_path: Path) -> None:
        write(tmp_path / "tasks.py", when=100)
        watch = FolderWatch(tmp_path, loaded_since=99)

        assert [watch.must_restart(), watch.must_restart()] == [True, False]


def test_the_traceback_of_a_code_error_starts_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outer_module.py").write_text("import inner_module\n")
    (tmp_path / "inner_module.py").write_text("prize = 1 / 0\n")
    (tmp_path / "half_module.py").write_text("def (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])

    with pytest.raises(ZeroDivisionError) as divided:
        load_module("outer_module")
    with pytest.raises(SyntaxError) as half:
        load_module("half_module")

    lines = project_traceback(divided.value, tmp_path).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.strip() for line in lines if line.startswith("  File ")] == [
        f'File "{tmp_path}/outer_module.py", line 1, in <module>',
        f'File "{tmp_path}/inner_module.py", line 1, in <module>',
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert project_traceback(half.value, tmp_path).startswith(f'  File "{tmp_path}/half_module.py", line 1\n')
