"""Test the names of tasks whose module is run as a script."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["work.py"], "work.job"),
        (["-m", "shop.jobs"], "shop.jobs.job"),
        (["-m", "shop"], "shop.job"),
    ],
)
def test_under_main_the_module_has_its_real_name(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """A producer that is run as a script and a worker that imports the module use the same task name."""
    code = textwrap.dedent("""
        from taskq_core import TaskQ
        taskq = TaskQ()
        @taskq.task
        def job(): ...
        print(job.name)
    """)
    (tmp_path / "shop").mkdir()
    for name in ("work.py", "shop/jobs.py", "shop/__main__.py"):
        (tmp_path / name).write_text(code)
    (tmp_path / "shop/__init__.py").touch()

    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )

    assert done.stdout.strip() == expected, done.stderr


def test_in_a_spawned_child_the_module_has_its_real_name(tmp_path: Path) -> None:
    """The module multiprocessing imports a script once more as `__mp_main__`."""
    (tmp_path / "work.py").write_text(
        textwrap.dedent("""
        import multiprocessing
        from taskq_core import TaskQ
        taskq = TaskQ()
        @taskq.task
        def job(): ...
        def show(): print(job.name, flush=True)
        if __name__ == "__main__":
            child = multiprocessing.get_context("spawn").Process(target=show)
            child.start()
            child.join()
    """)
    )

    done = subprocess.run(
        [sys.executable, "work.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )

    assert done.stdout.strip() == "work.job", done.stderr
