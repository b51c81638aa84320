"""Management commands whose arguments click parses. Django's own options may be anywhere among them."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, cast

import click
from django.core.management.base import BaseCommand, CommandError, CommandParser

from taskq_core import TaskQError
from taskq_core.cli.base import FAILED, failure_text, usage_text, write_failure_text
from taskq_core.cli.session import Session
from taskq_django.app import taskq

_FLAGS = ("--traceback", "--no-color", "--force-color", "--skip-checks")
_FAILURES = {
    "doctor": "something is red, or could not be repaired; see above",
    "health": "the queues are not healthy",
}
"""Texts of the `CommandError` of commands of `manage.py taskq` that do not process a list of items."""
_VALUES = ("-v", "--verbosity", "--settings", "--pythonpath")


class Parser(CommandParser):
    """Parses Django's options at any position, and leaves all other arguments to click."""

    click_command: click.Command

    def parse_args(  # type: ignore[override]  # argparse declares overloads for the argument `namespace`
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Return Django's options, and the other arguments as `words`."""
        words, ours = _parted(sys.argv[2:] if args is None else args)
        if "--help" in words:  # print the help before Django's system checks, which may fail
            self.click_command.main(words, self.prog, obj=Session(taskq))
        parsed = super().parse_args(ours, namespace)
        parsed.words = words
        return parsed

    def print_help(self, file: Any = None) -> None:
        """Print the help of the whole command."""
        with click.Context(self.click_command, info_name=self.prog, obj=Session(taskq)) as context:
            click.echo(self.click_command.get_help(context), file=file)


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those for click and Django's options."""
    words: list[str] = []
    ours: list[str] = []
    left = iter(arguments)
    for word in left:
        if word == "--":
            words += [word, *left]
        elif word in _FLAGS or word.startswith(tuple(f"{each}=" for each in _VALUES)):
            ours.append(word)
        elif word in _VALUES:
            ours += [word, *[value for value in (next(left, None),) if value is not None]]
        elif word[:2] == "-v" and word[2:].isdigit():
            ours.append(word)
        else:
            words.append(word)
    return words, ours


class ClickCommand(BaseCommand):
    """A management command that runs a command of click. `call_command` also takes its options as keywords."""

    failure = "some items failed; see above"
    """The text of the `CommandError` for a command that fails with an exit status instead of an exception."""
    aborted = "stopped"
    """The text of the `CommandError` if the user presses Ctrl-C."""

    def make_click_command(self) -> click.Command:
        """Return the click command that parses and runs the command line."""
        raise NotImplementedError

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return a parser that leaves other arguments to click."""
        # BaseCommand has no hook for the class of its parser.
        parser: Any = super().create_parser(prog_name, subcommand, add_help=False, **kwargs)
        parser.__class__ = Parser
        parser.click_command = self.click_command = self.make_click_command()
        self.prog = parser.prog
        self.stealth_options = tuple(each.name or "" for each in self.click_command.params)
        return parser  # type: ignore[no-any-return]  # a Parser

    def handle(self, *args: Any, words: Sequence[str] = (), **options: Any) -> None:
        """Run the command line.

        Raises:
            CommandError: The command line is invalid (status 2), or the command failed (status 1).
        """
        session = Session(taskq, stdout=cast("Any", self.stdout), verbosity=options["verbosity"])
        if options["no_color"]:
            session.given["color"] = "never"
        elif options["force_color"]:
            session.given["color"] = "always"
        given = {name: options[name] for name in self.stealth_options if name in options}
        for name, value in given.items():
            if not isinstance(value, str | int | None):
                raise CommandError(
                    f"the option {name} must be text, a whole number, True, False or None, got {value!r}"
                )
        try:
            status = self.click_command.main(
                list(words), self.prog, standalone_mode=False, obj=session, default_map=given
            )
            self.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            self.stdout.write(error.format_message())
            raise CommandError("a command is missing", returncode=error.exit_code) from None
        except click.ClickException as error:
            raise CommandError(usage_text(error), returncode=error.exit_code) from None
        except click.Abort:
            raise CommandError(self.aborted) from None
        except TaskQError as error:
            raise CommandError(failure_text(error)) from error
        except OSError as error:
            text = write_failure_text(error)
            if not text:
                raise SystemExit(FAILED) from None
            raise CommandError(text) from None
        if isinstance(status, int) and status:
            problem = _FAILURES.get(words[0], self.failure) if words else self.failure
            raise CommandError(problem if status == FAILED else "", returncode=status)
