"""Update the translation catalogs of the admin and the web dashboard from the texts in the code.

    python scripts/translations.py            list missing and wrong translations
    python scripts/translations.py --write    add new texts to the catalogs, remove old texts, and compile the catalogs

A new text gets an empty translation. Fill it in, and run the script again. A text without a translation is shown in
English. So a missing translation is no error: exit status 77, as if the check could not be made.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from gettext import GNUTranslations
from io import BytesIO
from itertools import product
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from jinja2 import Environment
from jinja2.ext import GETTEXT_FUNCTIONS, extract_from_ast

from taskq_core.inspector import QueueStatus
from taskq_core.wire import TaskState
from taskq_core.workflow import StepState, WorkflowState

ROOT = Path(__file__).parents[1]
LANGUAGES = ("zh_Hans",)
_PARTS = {
    "gettext": ("id",),
    "ngettext": ("id", "plural"),
    "pgettext": ("context", "id"),
    "npgettext": ("context", "id", "plural"),
}


@dataclass(frozen=True, slots=True)
class Marks:
    """The functions that mark texts for translation in Python code.

    Attributes:
        module: The module that contains the functions.
        functions: The first parameters of each function, by its name.
    """

    module: str
    functions: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Texts that have a common catalog (a domain of gettext).

    Attributes:
        name: Name of the domain and of its catalog files.
        folder: The folder whose subfolder `locale` contains the catalogs.
        sources: Packages and files that contain the texts, each with the functions that mark texts in it.
        words: Values of enums that pages show, by the context of their translation.
        is_jinja: True for Jinja templates, False for Django templates.
    """

    name: str
    folder: Path
    sources: Sequence[tuple[Path, Marks]]
    words: Mapping[str, Sequence[StrEnum]]
    is_jinja: bool

    def catalog_path(self, language: str) -> Path:
        """Return the path of a language's catalog. The compiled catalog has the same path with the suffix `.mo`."""
        return self.folder / "locale" / language / "LC_MESSAGES" / f"{self.name}.po"


def _roles() -> tuple[StrEnum, ...]:
    """Return the roles of users of the dashboard, () without this add-on."""
    try:
        from taskq_dashboard import Role
    except ModuleNotFoundError:
        return ()
    return tuple(Role)


_DJANGOS = Marks("django.utils.translation", _PARTS | {f"{name}_lazy": parts for name, parts in _PARTS.items()})
_OURS = Marks(
    "taskq_core.settings.language",
    _PARTS | {name.replace("gettext", "marked"): parts for name, parts in _PARTS.items()},
)
_VIEWS = ROOT / "taskq_core" / "views"
_STATES: Mapping[str, Sequence[StrEnum]] = {
    "task state": tuple(TaskState),
    "workflow state": (*WorkflowState, *StepState),
    "queue status": tuple(QueueStatus),
}
ADMIN = Domain(
    name="django",
    folder=ROOT / "taskq_django",
    sources=(
        (ROOT / "taskq_django", _DJANGOS),
        *((_VIEWS / name, _OURS) for name in ("approvals.py", "labels.py", "times.py")),
    ),
    words=_STATES,
    is_jinja=False,
)
DASHBOARD = Domain(
    name="dashboard",
    folder=ROOT / "taskq_dashboard",
    sources=tuple((ROOT / name, _OURS) for name in ("taskq_core", "taskq_dashboard", "taskq_fastapi")),
    words={**_STATES, "role": _roles()},
    is_jinja=True,
)
DOMAINS = (ADMIN, DASHBOARD)
JINJA = Environment(autoescape=True, extensions=["jinja2.ext.i18n"], trim_blocks=True, lstrip_blocks=True)
_TAG = re.compile(r"{%\s*translate\s+\"([^\"]+)\"")
_BLOCK = re.compile(r"{%\s*blocktranslate[^%]*%}(.*?)(?:{%\s*plural\s*%}(.*?))?{%\s*endblocktranslate\s*%}", re.DOTALL)

Text = tuple[str, str, str]
"""Context, text and plural form of a text. "": without context or plural form."""


def texts(domain: Domain) -> list[Text]:
    """Return all texts of a domain that are marked for translation, without duplicates, in the order of the files."""
    found: dict[Text, None] = {}
    for place, marks in domain.sources:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            found.update(dict.fromkeys(_of_python(marks, path.read_text(encoding="utf-8"))))
    of_template = _of_jinja if domain.is_jinja else _of_django
    for path in sorted(domain.folder.rglob("*.html")):
        found.update(dict.fromkeys(of_template(path.read_text(encoding="utf-8"))))
    found.update(((context, str(word), ""), None) for context, words in domain.words.items() for word in words)
    return list(found)


def _of_python(marks: Marks, source: str) -> Iterator[Text]:
    if marks.module not in source:
        return
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == marks.module:
            names |= {each.asname or each.name: each.name for each in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            expected = marks.functions.get(names.get(node.func.id, ""), ())
            parts = dict(zip(expected, node.args, strict=False))
            values = {name: part.value for name, part in parts.items() if isinstance(part, ast.Constant)}
            # Only literals. A text in a variable is marked where the variable gets its value.
            if values and len(values) == len(expected):
                yield str(values.get("context", "")), str(values["id"]), str(values.get("plural", ""))


def _of_django(page: str) -> Iterator[Text]:
    yield from (("", text, "") for text in _TAG.findall(page))
    yield from (("", text, plural) for text, plural in (_as_format(block) for block in _BLOCK.findall(page)))


def _of_jinja(page: str) -> Iterator[Text]:
    for _line, function, message in extract_from_ast(JINJA.parse(page), GETTEXT_FUNCTIONS):
        parts = _PARTS["gettext" if function == "_" else function]
        values = dict(zip(parts, [message] if isinstance(message, str) else message or [], strict=False))
        if all(values.get(name) for name in parts):
            yield str(values.get("context", "")), str(values["id"]), str(values.get("plural", ""))


def _as_format(parts: tuple[str, str]) -> tuple[str, str]:
    one, many = (re.sub(r"{{\s*(\w+)\s*}}", r"%(\1)s", part) for part in parts)
    return one, many


def updated(domain: Domain, language: str) -> Catalog:
    """Return a catalog with the texts in the code: new texts have no translation, and old texts are removed."""
    path = domain.catalog_path(language)
    with path.open("rb") as file:
        old = read_po(file, locale=language)
    new = Catalog(locale=language, header_comment=old.header_comment, fuzzy=False, charset="utf-8")
    new.mime_headers = [(name, value) for name, value in old.mime_headers if name in _HEADERS]
    for context, text, plural in texts(domain):
        known = old.get(text, context or None)
        string = known.string if known is not None else ""
        new.add((text, plural) if plural else text, string or "", context=context or None, flags=_flags(text))
    return new


_UNKEPT = "Project-Id|Report-Msgid|POT-Creation|PO-Revision|Last-Translator|Language-Team|Generated-By"
_HEADERS = ("MIME-Version", "Content-Type", "Content-Transfer-Encoding")


def _flags(text: str) -> list[str]:
    return ["python-format"] if re.search(r"%(\(\w+\))?[sd%]", text) else []


def untranslated(domain: Domain, language: str) -> list[str]:
    """Return the texts in the code that have no translation, in singular and plural."""
    missing = [message for message in updated(domain, language) if message.id and not all(_strings(message))]
    return [text for message in missing for text in _parts(message)[1:] if text]


def problems(domain: Domain, language: str) -> list[str]:
    """Return the problems of a catalog: invalid translations, and a compiled file that does not match."""
    path = domain.catalog_path(language)
    with path.open("rb") as written, path.with_suffix(".mo").open("rb") as file:
        catalog, compiled = read_po(written, locale=language), GNUTranslations(file)
    found = [
        f"{language}: {message.id!r}: {error}"
        for message in catalog
        if message.id and all(_strings(message))
        for error in message.check(catalog)
    ]
    if not _matches(compiled, catalog):
        found.append(f"{path.with_suffix('.mo').relative_to(ROOT)} does not match its catalog")
    return found


def _matches(compiled: GNUTranslations, catalog: Catalog) -> bool:
    """Return whether a compiled catalog has the same translations as a catalog. Compare the singular forms."""
    strings = {_parts(message): _strings(message) for message in catalog if message.id}
    forms = {parts: each[0] for parts, each in strings.items() if all(each)}
    return all(
        form == (compiled.npgettext(context, text, plural, 1) if context else compiled.ngettext(text, plural, 1))
        if plural
        else form == (compiled.pgettext(context, text) if context else compiled.gettext(text))
        for (context, text, plural), form in forms.items()
    )


def _parts(message: Message) -> tuple[str, str, str]:
    text, plural = (message.id, "") if isinstance(message.id, str) else message.id
    return message.context or "", text, plural


def _strings(message: Message) -> list[str]:
    return [message.string] if isinstance(message.string, str) else list(message.string or ())


def as_po(catalog: Catalog) -> bytes:
    """Return the bytes of a catalog file. It has no line numbers of texts, because they change with every edit."""
    file = BytesIO()
    write_po(file, catalog, width=110, no_location=True, omit_header=False, ignore_obsolete=True)
    kept = [line for line in file.getvalue().decode().splitlines(keepends=True) if not re.match(rf'"({_UNKEPT})', line)]
    return "".join(kept).encode()


def as_mo(catalog: Catalog) -> bytes:
    """Return the bytes of the compiled file that gettext reads."""
    again = read_po(BytesIO(as_po(catalog)), locale=catalog.locale)
    again.creation_date = again.revision_date = datetime(2000, 1, 1, tzinfo=UTC)  # so that equal texts give equal bytes
    file = BytesIO()
    write_mo(file, again)
    return file.getvalue()


def main() -> int:
    """Update or check the catalogs. Return 1 if there are wrong translations, 77 if only translations are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update the catalogs and compile them")
    options = parser.parse_args()
    if options.write:
        for domain, language in product(DOMAINS, LANGUAGES):
            path, catalog = domain.catalog_path(language), updated(domain, language)
            path.write_bytes(as_po(catalog))
            path.with_suffix(".mo").write_bytes(as_mo(catalog))
    catalogs = list(product(DOMAINS, LANGUAGES))
    wrong = [problem for each in catalogs for problem in problems(*each)]
    missing = [(language, text) for domain, language in catalogs for text in untranslated(domain, language)]
    print(*wrong, *(f"{language}: not translated: {text!r}" for language, text in missing), sep="\n")
    if missing:
        print(f"NOT TRANSLATED: {len(missing)} texts are shown in English")
    return 1 if wrong else 77 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
