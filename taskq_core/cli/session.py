"""The session of a command: the queue application, its inspector, and the output. Each is opened on first use.

The application comes from the framework that runs the command, else from `--app`, else from the variables `TASKQ_...`.
`--url` and similar options override its settings.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

import click

from taskq_core.app import TaskQ
from taskq_core.broker.connection import Address, parse_url
from taskq_core.errors import ConfigurationError
from taskq_core.settings import Settings

if TYPE_CHECKING:  # imported only where needed: the modules are slow to import, and workers do not need them
    from taskq_core.cli.render import Output
    from taskq_core.inspector import Inspector

CONNECTION = ("url", "db", "username", "ask_password", "prefix")
"""Names of the shared options that select Redis."""


class Session:
    """One run of the command.

    Args:
        app: The application of the framework that runs the command; None uses the command line.
        stdout: Receives results; None is standard output.
        stderr: Receives errors; None is standard error.
        verbosity: The framework's verbosity option; None uses the command line.
    """

    def __init__(
        self,
        app: TaskQ | None = None,
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        verbosity: int | None = None,
    ) -> None:
        self.host = app
        self.stdout = stdout
        self.stderr = stderr
        self.verbosity = verbosity
        self.given: dict[str, Any] = {}
        """Given shared options, by name. The last one on the command line wins."""
        self.modules: Sequence[str] = ()
        """Modules with tasks to import after the application."""
        self._app: TaskQ | None = None
        self._inspector: Inspector | None = None
        self._output: Output | None = None

    @property
    def output(self) -> "Output":
        """Writes the results of the command."""
        if self._output is None:
            from taskq_core.cli.render import Output

            self._output = Output(
                self.stdout,
                self.stderr,
                as_json=bool(self.given.get("json")),
                colour=self.given.get("color", "auto"),
            )
        return self._output

    @property
    def app(self) -> TaskQ:
        """The queue application, changed by the options of the command line.

        Raises:
            ConfigurationError: The application does not exist, or a setting is not usable.
        """
        if self._app is None:
            self._app = self._find_app()
        return self._app

    @property
    def inspector(self) -> "Inspector":
        """The inspector of the application."""
        if self._inspector is None:
            from taskq_core.inspector import Inspector

            self._inspector = Inspector(self.app)
        return self._inspector

    def named_app(self, target: str | None) -> TaskQ:
        """Return the queue application for a command that needs the tasks of the application. The user has to name it.

        Args:
            target: Name of the application in the arguments of the command. None if `--app` or a framework names it.

        Raises:
            click.UsageError: No application is named.
            ConfigurationError: The application does not exist, or a setting is not usable.
        """
        self.name_app(target)
        return self.app

    def name_app(self, target: str | None) -> None:
        """Store the name of the queue application without importing it. `target` is as in `named_app`.

        Raises:
            click.UsageError: No application is named.
        """
        if target is not None:
            self.given["app"] = target
        if self.host is None and "app" not in self.given:
            raise click.UsageError(
                "give the name of the TaskQ object, for example shop.queue:taskq",
                click.get_current_context(silent=True),
            )

    def close(self) -> None:
        """Close the application, unless a framework supplied it."""
        if self._app is not None and self.host is None:
            self._app.close()
        self._app = self._inspector = None

    def _find_app(self) -> TaskQ:
        if self.host is not None:
            return self.host
        app = load_app(self.given["app"]) if "app" in self.given else None
        changes = {name: self.given[name] for name in CONNECTION if name in self.given}
        if app is None:
            # Ignore TASKQ_URL if --url is given, because TASKQ_URL may be invalid.
            url = {name: value for name, value in changes.items() if name == "url"}
            app = TaskQ.from_env({k: v for k, v in os.environ.items() if not (url and k == "TASKQ_URL")})
        if changes:
            app.configure(connected(app.settings, changes))
        app.import_tasks()
        for name in self.modules:
            load_module(name)
        return app


def connected(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return the settings, changed to use the Redis that the options of the command line select.

    Args:
        settings: The settings of the application or the environment.
        changes: The given options among `url`, `db`, `username`, `ask_password` and `prefix`. A URL without a scheme
            is a host and port.

    Raises:
        ConfigurationError: The URL is not usable, or its kind has no database or user.
    """
    url: Any = settings.url
    if "url" in changes:
        url = changes["url"] if "://" in changes["url"] else f"redis://{changes['url']}"
    if any(name in changes for name in ("db", "username", "ask_password")):
        url = _detailed(url, changes)
    return replace(settings, url=url, prefix=changes.get("prefix", settings.prefix))


def _detailed(url: Any, changes: Mapping[str, Any]) -> Address:
    address = parse_url(url) if isinstance(url, str) else url
    if not isinstance(address, Address):
        raise ConfigurationError(
            "the application uses its own redis-py client, whose user and database cannot be changed; "
            "give another address with --url"
        )
    if address.kind == "embedded":
        raise ConfigurationError(
            "embedded:// has neither user nor database; remove --db, --username and --ask-password"
        )
    if "db" in changes:
        if address.kind == "cluster":
            raise ConfigurationError("a cluster has no numbered databases; remove --db")
        address = replace(address, db=changes["db"])
    if "username" in changes:
        address = replace(address, username=changes["username"])
    if changes.get("ask_password"):
        address = replace(address, password=_ask_password(), password_file="")
    return address


def _ask_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, err=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise ConfigurationError("--ask-password: standard input contains no password")
    return password


def load_app(target: str) -> TaskQ:
    """Import a queue application.

    Args:
        target: `module:attribute`, for example `shop.queue:taskq`. The attribute may have dots. Modules are
            searched in the working directory first.

    Raises:
        ConfigurationError: The module or attribute does not exist, or it is not a `TaskQ`.
    """
    found = load_object(target, "a queue application")
    if not isinstance(found, TaskQ):
        raise ConfigurationError(f"{target!r} is not a TaskQ but of type {type(found).__name__!r}")
    return found


def load_object(target: str, what: str) -> object:
    """Import an object by its name.

    Args:
        target: `module:attribute`. The attribute may have dots. Modules are searched in the working directory first.
        what: Description of the expected object, for the error message.

    Raises:
        ConfigurationError: The module or attribute does not exist.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(f"{target!r} does not name {what}; give module:attribute")
    found: object = load_module(module_name, attribute)
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigurationError(f"{module_name!r} has no attribute {attribute!r}") from None
    return found


def load_module(name: str, attribute: str = "") -> ModuleType:
    """Import a module. The working directory is searched first.

    Args:
        name: Dotted name of the module.
        attribute: Attribute that the caller needs from the module, for the error message.

    Raises:
        ConfigurationError: The module does not exist.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists, but it imports a module that does not exist
        hint = f"; a module is named without .py: {name.removesuffix('.py')}" + (f":{attribute}" if attribute else "")
        raise ConfigurationError(
            f"there is no module {error.name!r} in {folder} or on Python's path"
            + (hint if name.endswith(".py") else "")
        ) from None
