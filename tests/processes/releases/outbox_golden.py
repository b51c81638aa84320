"""Print the rows that the outbox scenario writes, the golden file of a release.

python -m tests.processes.releases.outbox_golden > tests/golden/outbox-0.1.0.json
"""

import json
import os
import sys


def main() -> None:
    """Run the scenario on a separate database in memory, without Redis."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.taskq_django.settings"
    import django
    from django.test import override_settings
    from django.test.utils import setup_databases

    django.setup()
    setup_databases(verbosity=0, interactive=False, aliases=["default"])
    from taskq_django import taskq
    from tests.processes.releases.outbox_scenario import AWAY, play, written

    with override_settings(TASKQ={"QUEUES": {"default": 1, "low": 1}, **AWAY}):
        play(taskq)
        sys.stdout.write(json.dumps(written(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
