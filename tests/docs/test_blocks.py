"""Each block of code on a page is checked by something, or says why not.

Python is compiled and its imports are resolved (`test_pages.py`), and most of it runs (`test_how_to.py`). Here, data is
parsed, and commands of taskq are checked against their options. What cannot be checked is marked
`<!-- not run: why -->`.
"""

import configparser
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from django.core.management import CommandError, load_command_class

from taskq_core.cli.command import root
from taskq_core.cli.session import Session
from tests.docs.pages import PAGES, ROOT, Block, blocks

_DATA = {"json": json.loads, "toml": tomllib.loads, "yaml": lambda text: list(yaml.safe_load_all(text))}
_CHECKED_ELSEWHERE = ("python", "console", "ini", "text")
"""`text` is a drawing, an output, or rules of Redis that `tests/topologies/test_access.py` reads."""


def marked() -> Iterator[tuple[Path, Block]]:
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            for block in blocks(page):
                yield page, block


def test_every_block_is_checked_or_says_why_not() -> None:
    unchecked = [
        f"{page.relative_to(ROOT)}: a block of {block.language or 'nothing'}: {block.text.splitlines()[0]}"
        for page, block in marked()
        if block.language not in (*_DATA, *_CHECKED_ELSEWHERE) and not re.match("not run: .{10,}", block.mark)
    ]

    assert not unchecked


def test_data_on_pages_can_be_parsed() -> None:
    parsed = set()
    for page, block in marked():
        if block.language in _DATA and not block.mark.startswith("not run: "):
            parsed.add(block.language)
            try:
                _DATA[block.language](block.text)
            except ValueError as error:
                pytest.fail(f"{page.relative_to(ROOT)}: {error}\n{block.text}")

    assert parsed == _DATA.keys()


def test_units_on_a_page_can_be_read() -> None:
    for page, block in marked():
        if block.language == "ini":
            parser = configparser.ConfigParser(strict=False, interpolation=None)
            parser.read_string(block.text, source=str(page))
            assert parser.sections()


def commands(block: Block) -> list[str]:
    """Return the commands of a console block, without what they print and without comments."""
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    return [re.sub(r"\s+#.*$", "", line[2:]) for line in lines if line.startswith("$ ")]


def all_commands() -> list[tuple[Path, str]]:
    return [
        (page, each)
        for page, block in marked()
        if block.language == "console" and not block.mark.startswith("not run: ")
        for each in commands(block)
    ]


def commands_in_text() -> list[tuple[Path, str]]:
    """Return the commands in guides that the reader types. A command without arguments is only mentioned."""
    return [
        (page, command)
        for page in PAGES
        if page.parent.name in ("tutorials", "how-to")
        for command in re.findall(r"(?<!`)`(taskq [^`\n]+)`(?!`)", page.read_text())
        if not is_only_named(command.split()[1:])
    ]


def is_only_named(words: list[str]) -> bool:
    found: click.Command | None = root
    for word in words:
        found = found.get_command(click.Context(found), word) if isinstance(found, click.Group) else None
        if found is None:
            return False
    return True


def test_commands_on_pages_exist_with_their_options() -> None:
    listed, in_text = all_commands(), commands_in_text()
    problems = [
        f"{page.relative_to(ROOT)}: {command}: {problem}"
        for page, command in (*listed, *in_text)
        if (problem := problem_of(command))
    ]

    assert listed
    assert in_text
    assert not problems


def problem_of(command: str) -> str:
    """Return the error in a taskq command, or "" if it is valid."""
    words = shlex.split(re.split(r"\s(?:&|\||;)", command)[0])
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if any(word.isupper() or word.startswith("[") for word in words):
        return ""  # a form, not a command: `taskq NOUN VERB [options]`
    if words[:3] == ["python", "-m", "taskq_core"]:
        return problem_of_ours(words[3:])
    if words[0] == "taskq":
        return problem_of_ours(words[1:])
    if words[:2] == ["python", "manage.py"]:
        if words[2] == "taskq":
            return problem_of_ours(words[3:])
        return problem_of_djangos(words[2], words[3:]) if words[2] in ("runworker", "runscheduler") else ""
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        return "".join(f"no target {each}" for each in words[1:] if "=" not in each and each not in targets)
    if words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [name for word in words for name in re.findall(r"taskq-asynq\[([\w,-]+)\]", word)]
        return "".join(f"no extra {each}" for names in named for each in names.split(",") if each not in extras)
    return ""


def problem_of_djangos(name: str, words: list[str]) -> str:
    """Return the error of Django's parser for the arguments of a taskq command."""
    parser = load_command_class("taskq_django", name).create_parser("manage.py", name)
    try:
        parser.parse_args(words)
    except CommandError as error:
        return str(error)
    return ""


def problem_of_ours(words: list[str]) -> str:
    """Return what the command line of taskq has against some words, without running anything."""
    command: click.Command = root
    context = None
    session = Session()
    try:
        while isinstance(command, click.Group):
            context = command.make_context(command.name, list(words), parent=context, obj=session)
            words = [*context._protected_args, *context.args]
            if not words:
                return ""
            _, found, words = command.resolve_command(context, words)
            assert found is not None
            command = found
        command.make_context(command.name, list(words), parent=context, obj=session)
    except click.exceptions.Exit:
        return ""
    except click.ClickException as error:
        return error.format_message()
    finally:
        session.close()
    return ""
