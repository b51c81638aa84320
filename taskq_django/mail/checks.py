"""System checks of mailers that use `EmailBackend`.

- `taskq.E031` a mailer enqueues e-mail that could never be sent
- `taskq.W031` a mailer enqueues to a queue that no worker serves
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core import mail as django_mail
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's names for them
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from taskq_core import ConfigurationError
from taskq_django.app import taskq
from taskq_django.mail.backend import EmailBackend


@register
def check_mail(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the mailers of the settings that are `EmailBackend`."""
    found: list[CheckMessage] = []
    try:
        settings = taskq.settings
    except ConfigurationError:
        return []  # the system check taskq.E001 reports the error
    for where, kind, options in mailers():
        try:
            mailer = kind(**options)
        except (ImproperlyConfigured, ConfigurationError, TypeError) as error:
            problem = str(error).rstrip(".")
            found.append(Error(f"{where} enqueues e-mail that could never be sent: {problem}.", id="taskq.E031"))
            continue
        if mailer.queue not in settings.queues:
            found.append(
                Warning(
                    f"{where} enqueues e-mail to queue {mailer.queue!r}, which TASKQ['QUEUES'] does not name, so that "
                    "no worker serves it.",
                    hint="Add it to TASKQ['QUEUES'] with its weight, or add 'taskq.W031' to SILENCED_SYSTEM_CHECKS if "
                    "workers with --queues serve it.",
                    id="taskq.W031",
                )
            )
    return found


def mailers() -> Iterator[tuple[str, type[EmailBackend], dict[str, Any]]]:
    """Yield each mailer that is an `EmailBackend`: the setting that names it, its class and its arguments."""
    configured = getattr(django_settings, "MAILERS", None) if hasattr(django_mail, "mailers") else None
    if configured is None:
        lazy: Any = django_settings  # Any: the stubs omit `is_overridden`
        if not lazy.is_overridden("EMAIL_BACKEND"):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Django 6.1 has already warned that EMAIL_BACKEND is deprecated
            kind = _ours(django_settings.EMAIL_BACKEND)
        if kind is not None:
            yield "EMAIL_BACKEND", kind, {}
        return
    for alias, config in configured.items():
        kind = _ours(config.get("BACKEND", ""))
        if kind is not None:
            yield f"MAILERS[{alias!r}]", kind, {"alias": alias, **config.get("OPTIONS", {})}


def mail_queues() -> set[str]:
    """Return the queues to which the mailers enqueue. A mailer with an error, which a check reports, is left out."""
    found: set[str] = set()
    for _, kind, options in mailers():
        with suppress(ImproperlyConfigured, ConfigurationError, TypeError):
            found.add(kind(**options).queue)
    return found


def _ours(path: str) -> type[EmailBackend] | None:
    try:
        found = import_string(path)
    except ImportError:
        return None  # Django reports the import error when it sends mail
    return found if isinstance(found, type) and issubclass(found, EmailBackend) else None
