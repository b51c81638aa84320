"""Rewrite code that uses another task queue, so that it uses taskq: `taskq migrate`. Needs the extra `migrate`.

The command reads Python code and does not run it. It writes a comment above code that it cannot rewrite. The guides in
`docs/how-to/` explain the differences that are not visible in code.
"""

from taskq_migrate.changes import Change, Migration, Target, migrate_celery

__all__ = ["Change", "Migration", "Target", "migrate_celery"]
