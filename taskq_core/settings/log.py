"""The setting `LOG`: how failed runs appear in logs and spans."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taskq_core.errors import ConfigurationError

RETRY_LEVELS = ("INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """The setting `LOG`: how failed runs appear in logs and spans."""

    exception_messages: bool | str | Callable[[str], str] = True
    """Whether logs and spans contain the messages of exceptions, which may contain user data. A function, or its import
    path, receives each message and returns the text to show instead. Types and stacks are always shown."""
    retry_level: str = "WARNING"
    """Log level of a failed run that will be retried: `INFO`, `WARNING` or `ERROR`. The last failure of a task is
    always logged as `ERROR`."""

    def __post_init__(self) -> None:
        messages = self.exception_messages
        is_path = isinstance(messages, str) and "." in messages
        if not (isinstance(messages, bool) or is_path or callable(messages)):
            raise ConfigurationError(
                f"LOG['EXCEPTION_MESSAGES'] must be True, False, a function or its path, got {messages!r}"
            )
        if self.retry_level not in RETRY_LEVELS:
            raise ConfigurationError(
                f"LOG['RETRY_LEVEL'] must be one of {', '.join(RETRY_LEVELS)}, got {self.retry_level!r}"
            )

    @property
    def messages(self) -> bool | Callable[[str], str]:
        """`exception_messages`, with an import path replaced by its function.

        Raises:
            ConfigurationError: The path does not name a function.
        """
        value = self.exception_messages
        if not isinstance(value, str):
            return value
        try:
            found: Any = pkgutil.resolve_name(value)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"LOG['EXCEPTION_MESSAGES']: {value!r} cannot be imported: {error}") from error
        if not callable(found):
            raise ConfigurationError(f"LOG['EXCEPTION_MESSAGES']: {value!r} must be a function, got {found!r}")
        scrub: Callable[[str], str] = found
        return scrub
