"""Move the code of another task queue to taskq: `taskq migrate`.

It reads Python, runs nothing, and rewrites what it understands; what it does not understand stays as it was, under a
comment that says why. Nothing outside the rewritten pieces changes: not a blank, not a comment. The guides in
`docs/how-to/` tell what differs beyond the code.
"""

from taskq_core.migration.changes import Change, Migration, Target, migrate_celery

__all__ = ["Change", "Migration", "Target", "migrate_celery"]
