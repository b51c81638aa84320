"""Import the modules with tasks that the setting `AUTODISCOVER` names."""

import sys
from types import ModuleType

from django.apps import apps
from django.utils.module_loading import autodiscover_modules, module_has_submodule

from taskq_core import ConfigurationError
from taskq_core.app import import_named
from taskq_django.app import taskq


def autodiscover() -> None:
    """Import the modules with tasks that the settings `AUTODISCOVER` and `INCLUDE` name.

    True imports the module `tasks` of every installed app. A list names other modules of the apps. A name with a dot is
    imported directly. Modules of the setting `INCLUDE` are also imported.

    Raises:
        ConfigurationError: A module that a setting names does not exist.
    """
    try:
        included = taskq.settings.include
    except ConfigurationError:
        return  # a system check reports the invalid settings
    for name in included:
        import_named(name, "TASKQ['INCLUDE']")
    names = _wanted_names()
    if not names:
        return
    autodiscover_modules(*(name for name in names if "." not in name))
    for name in names:
        if "." in name:
            import_named(name, "TASKQ['AUTODISCOVER']")


def discovered_modules() -> list[ModuleType]:
    """Return the modules that `autodiscover` has imported."""
    paths = list(taskq.settings.include)
    for name in _wanted_names():
        paths += [name] if "." in name else [f"{app.name}.{name}" for app in apps.get_app_configs()]
    return [module for path in paths if (module := sys.modules.get(path)) is not None]


def missing_names() -> list[str]:
    """Return the names of `AUTODISCOVER` of which no installed app has a module, without the default `tasks`."""
    modules = [app.module for app in apps.get_app_configs() if app.module is not None]
    return [
        name
        for name in _wanted_names()
        if "." not in name and name != "tasks" and not any(module_has_submodule(each, name) for each in modules)
    ]


def _wanted_names() -> tuple[str, ...]:
    try:
        wanted = taskq.settings.autodiscover
    except ConfigurationError:
        return ()  # a system check reports the invalid settings; an error here would keep checks from running
    return wanted if isinstance(wanted, tuple) else ("tasks",) * wanted
