"""What a package needs to add a command to `taskq`.

An installed package adds a command with an entry point of the group `taskq.commands`. Its name is the name of the
command, and its value is a command of click that was made with `Command` or `Group`:

    [project.entry-points."taskq.commands"]
    hello = "hello_taskq.command:hello"

The command receives the `Session` of the command line with `click.pass_obj`. It raises a `TaskQError` for a failure, or
returns an exit status. `docs/how-to/add-a-command.md` contains an example.
"""

from taskq_core.broker.waiting import RedisWait
from taskq_core.cli.base import FAILED, NO_WAIT_HELP, Command, Group, failure_text
from taskq_core.cli.columns import (
    EVENTS,
    LIMITS,
    TYPES,
    entry_columns,
    member_columns,
    store_facts,
    task_columns,
    task_facts,
    worker_queues,
    workflow_columns,
)
from taskq_core.cli.params import DURATION
from taskq_core.cli.render import (
    Output,
    shown_bytes,
    shown_distance,
    shown_moment,
    shown_rate,
    shown_size,
    shown_span,
)
from taskq_core.cli.running import set_up_log
from taskq_core.cli.session import Session, load_object
from taskq_core.cli.table import GAP, Column, fitted
from taskq_core.service.blocking import run_service
from taskq_core.service.port import Answer, Port, Request, is_loopback, names_this_machine
from taskq_core.service.port import text as text_answer
from taskq_core.service.signals import signal_handlers
from taskq_core.settings import Duration, check_whole, seconds
from taskq_core.version import installed_version
from taskq_core.wire.cron import parse_schedule
from taskq_core.wire.quoting import clean

__all__ = [
    "DURATION",
    "EVENTS",
    "FAILED",
    "GAP",
    "LIMITS",
    "NO_WAIT_HELP",
    "TYPES",
    "Answer",
    "Column",
    "Command",
    "Duration",
    "Group",
    "Output",
    "Port",
    "RedisWait",
    "Request",
    "Session",
    "check_whole",
    "clean",
    "entry_columns",
    "failure_text",
    "fitted",
    "installed_version",
    "is_loopback",
    "load_object",
    "member_columns",
    "names_this_machine",
    "parse_schedule",
    "run_service",
    "seconds",
    "set_up_log",
    "shown_bytes",
    "shown_distance",
    "shown_moment",
    "shown_rate",
    "shown_size",
    "shown_span",
    "signal_handlers",
    "store_facts",
    "task_columns",
    "task_facts",
    "text_answer",
    "worker_queues",
    "workflow_columns",
]
