"""Propagate the language, time zone and request id of the enqueuing code to the run of the task.

Values equal to the project's defaults are not stored, because the run has these defaults, too. Values that a run cannot
use, such as a language that is not installed there, are ignored.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import lru_cache
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings
from django.utils import timezone as django_timezone
from django.utils import translation
from django.utils.module_loading import import_string

from taskq_core import ConfigurationError, TaskContext
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.execution.propagation import LANGUAGE, REQUEST_ID, TIME_ZONE, readable, request_id
from taskq_core.settings import PropagateSettings
from taskq_core.tasks.middleware import Middleware
from taskq_core.wire import ENQUEUED

logger = logging.getLogger("taskq.propagation")

_HEADERS = frozenset((LANGUAGE, TIME_ZONE, REQUEST_ID))


def check_request_id(source: object) -> None:
    """Check that the function that `PROPAGATE["REQUEST_ID"]` names can be imported.

    Raises:
        ConfigurationError: The name cannot be imported, or does not name a function.
    """
    if isinstance(source, str):
        try:
            is_function = callable(import_string(source))
        except ImportError as error:
            raise ConfigurationError(f"{source!r}: {error}") from None
        if not is_function:
            raise ConfigurationError(f"{source!r} is not a function")


def propagated(settings: PropagateSettings) -> dict[str, str]:
    """Return the headers with the current language, time zone and request id, as the settings ask for them."""
    found: dict[str, str] = {}
    if settings.enqueued_at:
        found[ENQUEUED] = f"{SYSTEM_CLOCK.time() * 1000:.0f}"
    if settings.language:
        language = translation.get_language()
        if language and language != django_settings.LANGUAGE_CODE:
            found[LANGUAGE] = readable(language)
    if settings.time_zone:
        zone = django_timezone.get_current_timezone()
        if zone != django_timezone.get_default_timezone():
            found[TIME_ZONE] = readable(str(zone))
    if settings.request_id:
        known = request_id.get()
        if isinstance(settings.request_id, str):
            known = _project_request_id(settings.request_id) or known
        if known:
            found[REQUEST_ID] = known
    return {name: value for name, value in found.items() if value}


def _project_request_id(path: str) -> str:
    """Return the request id from the project's function. Log its exceptions and return "" instead."""
    try:
        return readable(import_string(path)())
    except Exception:
        logger.exception("PROPAGATE['REQUEST_ID'] failed; the task is enqueued without it")
        return ""


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None


class PropagateMiddleware(Middleware):
    """Activates the language, time zone and request id of a task's headers during its run."""

    def __init__(self, settings: Callable[[], PropagateSettings]) -> None:
        self._settings = settings

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        """Run a plain function in the language and time zone of the enqueuing code, with its request id."""
        with self._in_force(context):
            return call()

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        """Run a coroutine in the language and time zone of the enqueuing code, with its request id."""
        with self._in_force(context):
            return await call()

    def _in_force(self, context: TaskContext) -> ExitStack:
        """Activate the usable values of the headers. The returned stack restores the previous ones when it closes."""
        headers, stack = context.headers, ExitStack()
        if _HEADERS.isdisjoint(headers):
            return stack
        settings = self._settings()
        if (
            settings.language
            and (language := readable(headers.get(LANGUAGE)))
            and translation.check_for_language(language)
        ):
            stack.enter_context(translation.override(language))
        if settings.time_zone and (name := readable(headers.get(TIME_ZONE))) and (zone := _zone(name)):
            stack.enter_context(django_timezone.override(zone))
        if settings.request_id and (known := readable(headers.get(REQUEST_ID))):
            stack.callback(request_id.reset, request_id.set(known))
        return stack
