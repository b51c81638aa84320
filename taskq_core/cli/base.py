"""Building blocks of the `taskq` command: nested commands with aliases, shared options, and one-line errors.

A shared option (`--url`, `--json`, ...) may be given after `taskq`, after the noun or after the verb; the last one
wins. An error is one line on standard error with a hint, never a traceback. The exit status is 0 for success, 1 for a
failure and 2 for a wrong command line.
"""

import errno
import importlib
import os
import sys
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from taskq_core.cli.session import Session
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerError,
    BrokerUnavailableError,
    EntryNotFoundError,
    QueueNotEmptyError,
    QueueNotFoundError,
    TaskNotFoundError,
    TaskQError,
    WorkerNotFoundError,
)
from taskq_core.service.outage import ADDRESS_HINT
from taskq_core.wire.quoting import clean

FAILED = 1
"""Exit status of the `taskq` command after a failure."""
WRONG_USE = 2
"""Exit status of the `taskq` command if the command line is wrong."""
COMPLETE_VARIABLE = "_TASKQ_COMPLETE"
"""Environment variable that the completion script of a shell sets to request completions."""


class SharedOption(click.Option):
    """An option of every command. The session stores its value."""

    def __init__(self, flags: Sequence[str], **attributes: Any) -> None:
        super().__init__(flags, expose_value=False, callback=_keep, **attributes)


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    if context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE:
        context.ensure_object(Session).given[option.name or ""] = value


def output_options() -> list[SharedOption]:
    """Return the shared options for the output."""
    return [
        SharedOption(["--json"], is_flag=True, help="print JSON"),
        SharedOption(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            help="colors: on a terminal (auto, the default), always or never",
        ),
    ]


def connection_options() -> list[SharedOption]:
    """Return the shared options that select the queue application and Redis."""
    return [
        SharedOption(
            ["url", "-u", "--url", "--uri"],
            metavar="URL",
            help="Redis URL or host:port (default: TASKQ_URL, else redis://localhost:6379/0)",
        ),
        SharedOption(["db", "-n", "--db"], type=click.IntRange(0), metavar="N", help="database number"),
        SharedOption(["username", "-U", "--username"], metavar="NAME", help="Redis user"),
        SharedOption(
            ["--ask-password"],
            is_flag=True,
            help="prompt for the Redis password, or read it from standard input",
        ),
        SharedOption(["--prefix"], metavar="TEXT", help="prefix of every key (default: TASKQ_PREFIX, else asynq)"),
        SharedOption(
            ["--app"],
            metavar="MODULE:ATTRIBUTE",
            help="use the settings and tasks of this TaskQ, for example shop.queue:taskq",
        ),
    ]


class _Shared(click.Command):
    """Base class of commands and groups. It adds aliases, and options that all commands share."""

    def __init__(self, *args: Any, aliases: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aliases = tuple(aliases)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters of this command and the shared options."""
        root = ctx.find_root().command
        return [*super().get_params(ctx), *(root.shared if isinstance(root, Root) else ())]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options to the help text. The shared options come last, in a separate section."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                (shared if isinstance(param, SharedOption) else own).append(record)
        for title, records in (("Options", own), ("Shared options", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the text at the end of the help. Keep its line breaks, and replace `%(prog)s` by the program's name."""
        if self.epilog:
            formatter.write("\n" + self.epilog.replace("%(prog)s", ctx.command_path))


class Command(_Shared):
    """A command.

    Args:
        aliases: Further names of the command.
        epilog: Text below the options, with its line breaks.
    """


class Group(_Shared, click.Group):
    """A group of commands about one kind of object. The error for a mistyped command suggests the most similar one.

    Args:
        aliases: Further names of the noun.
    """

    command_class = Command

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with this name or alias, None if there is none."""
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return found
        return next((each for each in self.commands.values() if cmd_name in getattr(each, "aliases", ())), None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the next command on the command line, with its full name instead of an alias."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"no command {name!r}{self._near(name)}", ctx)
        resolved, command, rest = super().resolve_command(ctx, args)
        return (command.name if command is not None else resolved), command, rest

    def _near(self, name: str) -> str:
        import difflib  # imported here, so that workers start faster

        known = {alias: own for own, each in self.commands.items() for alias in (own, *getattr(each, "aliases", ()))}
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        return f"; did you mean {near[0]!r}?" if near else f"; the commands are {', '.join(self.commands)}"

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands to the help, then the options."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands to the help, with their aliases."""
        rows = []
        for name, command in self.commands.items():
            if not command.hidden:
                aliases = getattr(command, "aliases", ())
                rows.append((f"{name} ({', '.join(aliases)})" if aliases else name, command.get_short_help_str(80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class LazyCommands(UserDict[str, Any]):
    """Commands by name, imported on first use: a worker starts without the modules of other commands.

    A value is the command, or the names of modules of this package, separated by spaces. The command is the variable
    with its name in the first module. The other modules add subcommands to it when they are imported.

    The commands of other packages follow. They are looked up only if a command is not known, or if all are listed.
    """

    _has_added = False

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.data:
            self._add()
        known = self.data[name]
        if isinstance(known, str):
            first, *_ = [importlib.import_module(f"taskq_core.cli.{module}") for module in known.split()]
            self.data[name] = known = getattr(first, name)
        elif not isinstance(known, click.Command):
            from taskq_core.cli.added import load_command

            self.data[name] = known = load_command(known, Command)
        command: click.Command = known
        return command

    def __contains__(self, name: object) -> bool:
        return name in self.data or (self._add() and name in self.data)

    def __iter__(self) -> Iterator[str]:
        self._add()
        return super().__iter__()

    def _add(self) -> bool:
        """Look up the commands of other packages. Return False if that was done before."""
        if self._has_added:
            return False
        from taskq_core.cli.added import added_commands

        self.data.update(added_commands(frozenset(self.data)))
        self._has_added = True
        return True


class Root(Group):
    """The root command `taskq`.

    Args:
        shared: Options of every command.
    """

    group_class = Group

    def __init__(self, *args: Any, shared: Sequence[SharedOption], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shared = tuple(shared)


def run_reporting(run: Callable[[], Any]) -> int:
    """Call a function and return the exit status. Print an error as one line on standard error."""
    try:
        status = run()
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return WRONG_USE
    except click.ClickException as error:
        return _report(usage_text(error), WRONG_USE if isinstance(error, click.UsageError) else FAILED)
    except click.Abort:
        return _report("stopped; the remaining items were not changed", FAILED)
    except TaskQError as error:
        return _report(failure_text(error), FAILED)
    except OSError as error:
        text = write_failure_text(error)
        return _report(text, FAILED) if text else FAILED
    return status if isinstance(status, int) else 0


def write_failure_text(error: OSError) -> str:
    """Return the message for a failed write to standard output, "" if the reader closed the pipe. Discard later output.

    Raises:
        OSError: The given error, if it was not caused by a write to standard output.
    """
    if error.errno not in _CANNOT_WRITE or error.filename is not None:
        raise error
    # Redirect standard output, because Python flushes it at exit, and this flush would fail a second time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return "" if error.errno == errno.EPIPE else f"cannot write the output: {error.strerror}"


_CANNOT_WRITE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writes to a closed pipe, a full disk and a closed terminal."""


def _report(text: str, status: int) -> int:
    sys.stderr.write(f"taskq: {text}\n")
    return status


def usage_text(error: click.ClickException) -> str:
    """Return the error of a wrong command line as one line."""
    text = clean(" ".join(error.format_message().split()))
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return text
    return f"{text.rstrip('.')} (see {error.ctx.command_path} --help)"


def failure_text(error: TaskQError) -> str:
    """Return an error as one line, with a hint and its code."""
    text = clean(" ".join(str(error).split()).rstrip("."))
    hint = next((hint for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
    if isinstance(error, QueueNotEmptyError) and not error.active:
        hint = "--force deletes them too"
    message = f"{text}; {hint}" if hint and "did you mean" not in text else text
    return f"{message} [{error.code}]"


_HINTS: Mapping[type[TaskQError], str] = {
    BrokerUnavailableError: ADDRESS_HINT,
    BrokerAuthenticationError: "give user and password in TASKQ_URL or in Django TASKQ['URL'], or use --ask-password",
    BrokerError: "run taskq doctor to find the reason",
    QueueNotFoundError: "taskq queue list shows all queues",
    TaskNotFoundError: "taskq task list shows the existing tasks",
    EntryNotFoundError: "taskq cron list shows the entries of running schedulers",
    WorkerNotFoundError: "taskq server list shows the running workers",
}

Answer = tuple[str, Mapping[str, Any]]
"""The result of an action on one name: a sentence for text output, and additional fields for JSON output."""


def for_each(session: Session, key: str, names: Sequence[str], act: Callable[[str], str | Answer]) -> int:
    """Run an action for each name, and report each result. After a failure, the remaining names are still processed.

    If Redis cannot be reached, the remaining names are skipped, because each would wait as long as the first.

    Args:
        session: The session, with the output.
        key: Kind of object that the names belong to. The JSON output is `{"<key>s": [{"<key>": name, "ok": true},
            ...]}`.
        names: The names.
        act: Runs the action for a name. It returns a sentence, or a sentence and further fields of the document.

    Returns:
        The exit status: 1 if an action failed.
    """
    documents: list[dict[str, Any]] = []
    left = list(dict.fromkeys(names))
    while left:
        name = left.pop(0)
        try:
            answer = act(name)
        except TaskQError as error:
            text = failure_text(error)
            documents.append({key: name, "ok": False, "error": text, "code": error.code})
            session.output.error(f"taskq: {text}")
            if left and isinstance(error, BrokerUnavailableError):
                documents += [{key: each, "ok": False, "error": "not tried"} for each in left]
                session.output.error(f"taskq: skipped, because Redis does not answer: {', '.join(left)}")
                break
            continue
        sentence, more = (answer, {}) if isinstance(answer, str) else answer
        documents.append({key: name, "ok": True, **more})
        if not session.output.as_json:
            session.output.line(sentence)
    if session.output.as_json:
        session.output.json({f"{key}s": documents})
    return FAILED if any(not each["ok"] for each in documents) else 0


def confirm(question: str, *, yes: bool) -> None:
    """Ask for a confirmation of an action that cannot be undone, unless `--yes` was given.

    Raises:
        click.UsageError: Standard input is not a terminal.
        click.Abort: The user refused.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        text = f"{question.rstrip('?')}: standard input is not a terminal to ask for confirmation; pass --yes"
        raise click.UsageError(text, click.get_current_context(silent=True))
    try:
        is_confirmed = click.confirm(clean(question), err=True)
    except click.Abort:
        click.echo(err=True)  # end the line of the question after Ctrl-C or Ctrl-D
        raise
    if not is_confirmed:
        raise click.Abort


NO_WAIT_HELP = "exit with status 1 if Redis cannot be reached at the start, instead of waiting for it"
"""Help of the option `--no-wait` of long-running commands."""
yes_option = click.option("-y", "--yes", is_flag=True, help="do not ask for confirmation")


def each_command(
    group: click.Group,
    name: str,
    *params: Callable[[Any], Any],
    key: str = "id",
    aliases: Sequence[str] = (),
    question: Callable[[Sequence[str], Mapping[str, Any]], str] | None = None,
) -> Callable[[Callable[..., str | Answer]], click.Command]:
    """Return a decorator that makes a command from a function for one name.

    The command calls the function for each given name.

    The decorated function gets the session, one name, and the options. Its docstring is the help.

    Args:
        group: The group of the command.
        name: Name of the command.
        params: Decorators that add its parameters: `names` for the names, and the options.
        key: Kind of the names, in the JSON document: `{"<key>s": [{"<key>": name, "ok": true}, ...]}`.
        aliases: Further names of the command.
        question: Returns the confirmation question for the names and options. None: the command asks no question.
    """

    def decorate(act: Callable[..., str | Answer]) -> click.Command:
        @click.pass_obj
        def command(
            session: Session, /, names: tuple[str, ...], more_names: tuple[str, ...] = (), yes: bool = True, **rest: Any
        ) -> int:
            names = (*names, *more_names)
            if not names:
                raise click.UsageError("give the id of at least one task", click.get_current_context())
            if question is not None:
                confirm(question(names, rest), yes=yes)
            return for_each(session, key, names, lambda each: act(session, each, **rest))

        made = group.command(name, cls=Command, aliases=aliases, help=act.__doc__)(command)
        for param in params if question is None else (*params, yes_option):
            param(made)
        return made

    return decorate
