"""Rewrite the code of another task queue for taskq: `taskq migrate`. Needs the extra `migrate`.

It reads Python and runs nothing. It puts a comment above code that it cannot rewrite, and changes nothing else. The
guides in `docs/how-to/` say what differs beyond the code.
"""

from taskq_core.migrate.changes import Change, Migration, Target, migrate_celery

__all__ = ["Change", "Migration", "Target", "migrate_celery"]
