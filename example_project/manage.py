"""Django's command line: `python manage.py runserver`, `migrate`, `runworker`, ..."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run a command."""
    # Let Python import the package `example_project` from its parent folder, whatever the working directory is.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

    from django.core.management import execute_from_command_line

    from example_project.telemetry import trace_process

    if sys.argv[1:2] in (["runworker"], ["runscheduler"]):
        trace_process(f"studio-{sys.argv[1].removeprefix('run')}")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
