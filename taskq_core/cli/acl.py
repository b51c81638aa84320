"""`taskq acl`: print the ACL rules that give a Redis user the rights of one role.

The command does not connect to Redis.
"""

import hashlib
import os
import re
from typing import Any

import click

from taskq_core.broker.connection import Address, parse_url
from taskq_core.broker.roles import EVERY_QUEUE, RedisVersion, Role, rules
from taskq_core.cli.base import Command
from taskq_core.cli.session import Session

PLACEHOLDER = "#SHA-256-OF-THE-PASSWORD"
"""Rule that is printed if no password hash is given. Redis refuses it, so it cannot become a password by mistake."""
_HASH = re.compile(r"[0-9a-f]{64}")


@click.command(
    "acl",
    cls=Command,
    epilog="""\
examples:
  %(prog)s producer --queue mail --password-env MAIL_PASSWORD | redis-cli
      a user "producer" that enqueues to the queue "mail", with the password from that variable
  %(prog)s worker --queue mail --queue default --user shop-worker --password-hash 5e88...
  %(prog)s producer --queue billing --user shop-worker --keep
      the same user may enqueue to another queue as well
""",
)
@click.argument("role", type=click.Choice([each.value for each in Role]), metavar="ROLE")
@click.option("queues", "-q", "--queue", multiple=True, metavar="NAME", help="a queue; may be repeated (default: all)")
@click.option("--user", metavar="NAME", help="name of the user (default: the role)")
@click.option(
    "--password-env", metavar="VARIABLE", help="environment variable with the password; only its SHA-256 is printed"
)
@click.option("--password-hash", metavar="HEX", help="SHA-256 of the password, 64 hex digits in lower case")
@click.option(
    "--with-lists",
    is_flag=True,
    help="let a producer or scheduler use priorities, and a producer cancel running workflow steps; "
    "it can then also list, take and reorder pending tasks",
)
@click.option(
    "--redis",
    "version",
    type=click.Choice([each.value for each in RedisVersion]),
    default=RedisVersion.V7_2.value,
    show_default=True,
    help="oldest version of your Redis servers; rules for 6.2 restrict less",
)
@click.option("--keep", is_flag=True, help="add the role to the user's existing rights and passwords")
@click.pass_obj
def acl(
    session: Session,
    role: str,
    queues: tuple[str, ...],
    user: str | None,
    password_env: str | None,
    password_hash: str | None,
    with_lists: bool,
    version: str,
    keep: bool,
) -> None:
    """Print the ACL SETUSER line that gives a Redis user the rights of ROLE.

    Nothing is sent to Redis. Prefix and database number come from the settings. A password is never printed.
    """
    context = click.get_current_context()
    if with_lists and role not in (Role.PRODUCER, Role.SCHEDULER):
        raise click.UsageError(f"--with-lists is for producer and scheduler; a {role} needs no such option", context)
    if keep and (password_env or password_hash):
        raise click.UsageError("--keep leaves the passwords unchanged; remove the option that sets a password", context)
    name = role if user is None else user
    if not name or re.search(r"\s", name):
        raise click.UsageError(f"the name of a Redis user must not be empty or contain spaces, got {name!r}", context)
    settings = session.app.settings
    found = rules(
        Role(role),
        queues or [EVERY_QUEUE],
        prefix=settings.prefix,
        db=_database(settings.url),
        redis=RedisVersion(version),
        with_lists=with_lists,
    )
    if not keep:
        found = ["reset", "resetchannels", "on", _password(password_env, password_hash), *found]
    command = " ".join(["ACL SETUSER", name, *found])
    if session.output.as_json:
        session.output.json({"user": name, "role": role, "rules": found, "command": command})
        return
    session.output.line(command)
    if PLACEHOLDER in found:
        session.output.note(
            f"replace {PLACEHOLDER} with '#' and the SHA-256 of a password, or give --password-env or --password-hash"
        )


def _password(variable: str | None, digest: str | None) -> str:
    context = click.get_current_context()
    if variable is not None and digest is not None:
        raise click.UsageError("give either --password-env or --password-hash", context)
    if variable is not None:
        password = os.environ.get(variable, "")
        if not password:
            raise click.UsageError(f"--password-env: the variable {variable!r} is not set or empty", context)
        digest = hashlib.sha256(password.encode()).hexdigest()
    if digest is None:
        return PLACEHOLDER
    if not _HASH.fullmatch(digest):
        raise click.UsageError("--password-hash takes 64 hex digits in lower case, the SHA-256 of a password", context)
    return f"#{digest}"


def _database(url: Any) -> int:
    address = parse_url(url) if isinstance(url, str) else url
    return address.db if isinstance(address, Address) else 0
