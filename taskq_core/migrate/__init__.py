"""Rewrite the code of another task queue for taskq: `taskq migrate`. Needs the extra `migrate`.

It reads Python and runs nothing. What it does not understand stays as it is, below a comment that says why, and nothing
outside the rewritten pieces changes. The guides in `docs/how-to/` say what differs beyond the code.
"""

from taskq_core.migrate.changes import Change, Migration, Target, migrate_celery

__all__ = ["Change", "Migration", "Target", "migrate_celery"]
