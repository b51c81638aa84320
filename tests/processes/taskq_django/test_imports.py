"""Test the imports of a Python process, and the names of its tasks."""

import subprocess
import sys
from pathlib import Path

from taskq_django.tasks_backend.framework import PACKAGE


def test_a_process_imports_only_needed_modules() -> None:
    """A process that only enqueues imports neither worker nor command line, which would double the time of its setup.

    A worker does not import modules of other commands.
    """
    code = (
        "import sys, django\n"
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['django.contrib.contenttypes', 'taskq_django'], TASKQ={'URL': 'embedded://'})\n"
        "django.setup()\n"
        "print(*[name for name in ('taskq_django.checks', 'taskq_core.worker', 'taskq_core.cli', 'click', 'rich')\n"
        "       if name in sys.modules])\n"
        "from taskq_django.management.commands.runworker import Command\n"
        "Command().create_parser('manage.py', 'runworker')\n"
        "print(*[name for name in ('taskq_core.worker', 'taskq_core.inspector', 'taskq_core.scheduler', 'rich')\n"
        "       if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines() == ["taskq_django.checks", "taskq_core.worker"]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_taskq_django_needs_no_framework() -> None:
    code = (
        "import sys, taskq_django, taskq_django.conf\nprint([n for n in sys.modules if 'django' in n and 'tasks' in n])"
    )

    loaded = run_python(code)

    assert "django.tasks" not in loaded.replace("taskq_django.tasks", "")
    assert "django_tasks" not in loaded


def test_without_the_framework_the_package_to_install_is_named() -> None:
    code = (
        "import sys, django\n"
        "django.VERSION = (5, 2, 0, 'final', 0)\n"
        "sys.modules['django_tasks'] = None\n"
        "from django.core.exceptions import ImproperlyConfigured\n"
        "import taskq_django\n"
        "try:\n"
        "    taskq_django.TaskQBackend\n"
        "except ImproperlyConfigured as error:\n"
        "    print(error)\n"
    )

    assert "install the package django-tasks: pip install 'taskq-asynq[django-tasks]'" in run_python(code)


def test_a_task_in_a_script_has_the_name_that_a_worker_imports(tmp_path: Path) -> None:
    """`__main__` is a different module in each process, so the name uses the file name of the script."""
    script = tmp_path / "nightly.py"
    script.write_text(
        "import django\n"
        "from django.conf import settings\n"
        "settings.configure(TASKQ={'EAGER': True}, TASKS={'default': {'BACKEND': 'taskq_django.TaskQBackend'}},\n"
        "    INSTALLED_APPS=['taskq_django'], USE_TZ=True)\n"
        "django.setup()\n"
        f"from {PACKAGE} import task\n"
        "@task\n"
        "def tidy() -> int:\n"
        "    return 5\n"
        "from taskq_django import taskq\n"
        "print([name for name in taskq.tasks if 'tidy' in name], tidy.enqueue().return_value)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == "['nightly.tidy'] 5", done.stderr
