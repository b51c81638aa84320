"""The pages say what is true: their code runs, their tables list what there is, their links lead somewhere."""

import ast
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path
from typing import Any

import click
import django
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import taskq_core
from taskq_core import TaskQ, errors, schedule_setting
from taskq_core.cli.command import root
from taskq_core.inspector import Inspector
from taskq_core.options import TaskOptions
from taskq_core.scheduler import SchedulerConfig
from taskq_core.settings import (
    ArchiveSettings,
    CarrySettings,
    CircuitSettings,
    EmailSettings,
    QueueLimit,
    Settings,
    TraceSettings,
)
from taskq_core.telemetry import names
from taskq_core.telemetry.client_metrics import _client_instruments
from taskq_core.telemetry.gauges import _GAUGES
from taskq_core.telemetry.worker_metrics import _worker_instruments
from taskq_core.wire import Keys
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer

ROOT = Path(__file__).parent.parent
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_FILE = re.compile(r"^# (?P<name>[\w/]+\.py)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code on a page, with the text of an HTML comment in the line before it."""

    mark: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(**match.groupdict(default="")) for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))]


def files_of(page: Path) -> dict[str, str]:
    """Return the files that a page's Python blocks show: each begins with its name in a comment."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if block.language == "python":
            _, *parts = _FILE.split(block.text)
            found.update(zip(parts[::2], parts[1::2], strict=True))
    return found


def write_files(page: Path, folder: Path) -> None:
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def table(page: str, heading: str) -> dict[str, list[str]]:
    """Return the cells of the first table below a heading, by the first cell without its quotes."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
    rows: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0].strip("`")] = cells[1:]
        elif rows:
            break
    return dict(list(rows.items())[2:])  # without the head and the line below it


def default_of(field: Field[Any]) -> object:
    """Return the default of a field, `MISSING` if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment in which this project's commands are found and nothing of the caller's interferes.

    A Redis that is there is waited for as long as a busy machine takes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "OTEL_", "DJANGO_"))}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    own = {"PATH": path, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1", "TASKQ_ENQUEUE_TIMEOUT": "30"}
    return {**kept, **own, **more}


def run_python(folder: Path, code: str, **variables: str) -> str:
    """Run a program in a folder and return what it printed."""
    done = subprocess.run(
        (sys.executable, "-c", textwrap.dedent(code)),
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- what holds for all pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_compiles(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)


def test_a_long_task_goes_on_as_its_page_says(tmp_path: Path) -> None:
    """Its tasks are interrupted after each item, and the test on the page passes."""
    page = ROOT / "docs/how-to/long-tasks.md"
    write_files(page, tmp_path)
    parts = [each.text for each in blocks(page) if each.language == "python"]
    code = """
        from taskq_core.testing import capture, interrupt_after
        for text, name, args in {parts!r}:
            space = {{"__name__": "page"}}
            exec(compile(text, name, "exec"), space)
            with capture(space["taskq"]) as tasks, interrupt_after(1) as stops:
                space[name].delay(*args)
                tasks.run()
            print(name, stops.count)
        """
    calls: dict[str, list[Any]] = {"recompute": [[1, 2]], "replay": [], "copy_pages": [], "render": [3]}
    runs = [(text, name, args) for name, args in calls.items() for text in parts if f"def {name}(" in text]
    printed = run_python(tmp_path, code.format(parts=runs))
    passed = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    expected = ["order 1 is recomputed", "order 2 is recomputed", "recompute 2", "a", "b", "replay 2"]
    assert printed.splitlines() == [*expected, *["['a', 'b']"] * 3, "copy_pages 3", "render 0"]
    assert "1 passed" in passed.stdout, passed.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_imports_on_a_page_are_there(page: Path) -> None:
    """Every name that a page takes from one of the three packages exists."""
    for block in blocks(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("taskq_"):
                module = importlib.import_module(node.module or "")
                missing = [each.name for each in node.names if not hasattr(module, each.name)]
                assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings], target


def test_every_picture_is_there_shown_and_described() -> None:
    shown = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        tags = re.findall(r"<(?:img|source)\b[^>]*>", text)
        assert all(re.search(r'\balt="[^"]{20,}"', tag) for tag in tags if tag.startswith("<img")), page
        names = [name for tag in tags for name in re.findall(r'src(?:set)?="([^"]*)"', tag)]
        names += re.findall(r"!\[[^\]]{20,}\]\(([^)]*)\)", text)
        shown |= {(page.parent / name).resolve() for name in names}

    images = ROOT / "docs" / "images"
    assert shown == {path.resolve() for ending in ("png", "svg") for path in images.rglob(f"*.{ending}")}


def test_the_readme_says_the_same_in_chinese() -> None:
    """The same links, code, commands and marks, in the same order; what is code differs in its comments only."""
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    links = [set(re.findall(r"\]\(([^)]+)\)", page)) - {"README.md", "README.zh-CN.md"} for page in pages]
    code = [
        [re.sub(r" *# .*", "", each["text"]) for each in map(re.Match.groupdict, _BLOCK.finditer(page))]
        for page in pages
    ]
    marks = [re.findall(r"\| (yes|part|paid|\u2013|有|部分|付费)(?= \|)", page) for page in pages]
    words = {"有": "yes", "部分": "part", "付费": "paid"}

    assert links[0] == links[1]
    assert code[0] == code[1]
    assert marks[0] == [words.get(mark, mark) for mark in marks[1]]
    assert len(marks[0]) == 14 * 8
    assert pages[0].count("\n## ") == pages[1].count("\n## ")


@pytest.mark.parametrize("page", sorted((ROOT / "docs/tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_a_tutorial_installs_what_its_code_needs(page: Path) -> None:
    """The tests of a tutorial have all extras at hand; who begins has those that it names."""
    text = page.read_text(encoding="utf-8")
    installed = re.findall(r"pip install \"?taskq-asynq(?:\[([\w,-]+)\])?", text)
    extras = set(installed[0].split(","))

    needed = {
        "testing": r"import (capture|eager|drain|TaskQTestMixin)",
        "embedded": r"embedded://",
        "django": r"from taskq_django",
        "fastapi": r"from taskq_fastapi",
        "dashboard": r"\$ taskq dashboard|taskq_dashboard",
        "dash": r"\$ taskq dash\b(?!board)",
        "otel": r"opentelemetry",
    }
    assert {extra for extra, sign in needed.items() if re.search(sign, text)} <= extras


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")

    missing = [
        str(page.relative_to(ROOT / "docs"))
        for page in (ROOT / "docs").rglob("*.md")
        if page.name != "README.md" and f"({page.relative_to(ROOT / 'docs').as_posix()})" not in index
    ]

    assert not missing


# --- tables against the code ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "heading", "record", "upper"),
    [
        ("reference/settings.md", "Keys", Settings, True),
        ("reference/settings.md", "CARRY", CarrySettings, True),
        ("reference/settings.md", "EMAIL", EmailSettings, True),
        ("reference/settings.md", "ARCHIVE", ArchiveSettings, True),
        ("reference/settings.md", "TRACE", TraceSettings, True),
        ("reference/settings.md", "LIMITS", QueueLimit, True),
        ("reference/settings.md", "CIRCUIT_BREAKER", CircuitSettings, True),
        ("reference/settings.md", "WorkerConfig", WorkerConfig, False),
        ("reference/settings.md", "SchedulerConfig", SchedulerConfig, False),
        ("reference/task-options.md", "Options", TaskOptions, False),
    ],
)
def test_a_table_lists_every_field_with_its_default(page: str, heading: str, record: Any, upper: bool) -> None:
    rows = table(page, heading)
    expected = {each.name.upper() if upper else each.name: each for each in fields(record)}

    assert rows.keys() == expected.keys()
    for name, field in expected.items():
        shown = rows[name][1].strip("`")
        default = default_of(field)
        if isinstance(default, ArchiveSettings | CarrySettings | CircuitSettings | EmailSettings | TraceSettings):
            assert shown == "see below"
        elif default is MISSING:
            assert shown == ""
        elif isinstance(default, str):
            assert shown == f'"{default}"'
        else:
            assert ast.literal_eval(shown) == (dict(default) if isinstance(default, Mapping) else default), name


def test_the_table_of_aggregator_arguments_is_whole() -> None:
    rows = table("reference/task-options.md", "Aggregators")
    expected = {
        name: parameter.default
        for name, parameter in inspect.signature(TaskQ.aggregator).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }

    assert {name: ast.literal_eval(cells[0].strip("`")) for name, cells in list(rows.items())[1:]} == expected


def test_the_table_of_decorator_arguments_is_whole() -> None:
    arguments = {
        name
        for name, parameter in inspect.signature(TaskQ.task).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    text = (ROOT / "docs/reference/task-options.md").read_text(encoding="utf-8")

    assert all(f"| `{name}` |" in text for name in arguments)


def test_every_error_is_listed() -> None:
    public = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }
    public |= {
        name
        for name in taskq_core.__all__
        if inspect.isclass(getattr(taskq_core, name)) and issubclass(getattr(taskq_core, name), BaseException)
    }
    text = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")

    assert not {name for name in public if f"`{name}`" not in text}


def commands_below(command: click.Command, path: str) -> dict[str, click.Command]:
    """Return a command and all below it by the words that name them, those that only group others left out."""
    if not isinstance(command, click.Group):
        return {path: command}
    found: dict[str, click.Command] = {}
    for name, each in command.commands.items():
        found |= commands_below(each, f"{path} {name}")
    return found


COMMANDS = commands_below(root, "taskq")


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_listed_with_its_names_and_options(path: str) -> None:
    command = COMMANDS[path]
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    section = re.split(rf"^### {path}$", page, maxsplit=1, flags=re.MULTILINE)
    assert len(section) == 2, f"there is no heading '### {path}'"
    text = re.split(r"^##", section[1], maxsplit=1, flags=re.MULTILINE)[0]

    options = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts) if flag.startswith("-")}
    context = click.Context(command)
    arguments = {each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)}
    aliases = set(getattr(command, "aliases", ()))

    assert not {flag for flag in options if f"`{flag}" not in text}
    assert not {alias for alias in aliases if f"`{alias}`" not in text}
    assert all(argument.strip("[]{}.") in text for argument in arguments)


def test_every_shared_option_is_listed() -> None:
    rows = table("reference/cli.md", "Shared options")

    assert all(any(f"`{flag}" in f"`{name}" for name in rows) for each in root.shared for flag in each.opts)


def test_every_method_of_the_inspector_is_listed() -> None:
    methods = {name for name, _ in inspect.getmembers(Inspector, inspect.isfunction) if not name.startswith("_")}
    page = (ROOT / "docs/reference/inspector.md").read_text(encoding="utf-8")

    assert not {name for name in methods if f"`{name}(" not in page}


def test_every_metric_and_attribute_is_listed() -> None:
    known = {
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and value.startswith(("asynq.", "messaging.", "server.", "error."))
    }
    page = (ROOT / "docs/reference/telemetry.md").read_text(encoding="utf-8")

    assert not {name for name in known if f"`{name}`" not in page}


@pytest.mark.parametrize(
    ("heading", "kind"), [("Counters", "Counter"), ("Histograms", "Histogram"), ("Gauges", "Gauge")]
)
def test_every_metric_is_listed_under_its_kind_with_its_unit(heading: str, kind: str) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("taskq_core")
    made = {
        each.name: each.unit
        for instruments in (_client_instruments(meter), _worker_instruments(meter))
        for each in (getattr(instruments, name) for name in instruments.__slots__)
        if type(each).__name__.endswith(kind)
    }
    if kind == "Gauge":
        made = {name: unit for name, (unit, _) in _GAUGES.items()}
    rows = table("reference/telemetry.md", heading)

    assert {name: cells[0].strip("`") for name, cells in rows.items()} == made


def test_every_key_of_a_queue_is_listed() -> None:
    keys = Keys().queue("Q")
    built = {value for slot in keys.__slots__ if isinstance(value := getattr(keys, slot), str) and value.count(":") > 1}
    built |= {keys.tick("<entry>"), Keys().scheduler_leader("<digest>"), Keys().scheduler_history("<entry>")}
    built |= {keys.receipt("<caller>"), keys.call("<worker>"), keys.leader("<service>"), keys.peers("<host>")}
    built |= {keys.quarantined("<id>"), keys.removed("<kind>")}
    page = (ROOT / "docs/reference/layout-in-redis.md").read_text(encoding="utf-8")

    # A prefix is listed as the keys that begin with it.
    assert not {key for key in built if f"`{key}" not in page}


def test_every_lua_script_names_only_listed_fields_of_our_own() -> None:
    used = {
        field
        for script in (ROOT / "taskq_core/broker/lua").glob("*.lua")
        for field in re.findall(r"taskq_\w+", script.read_text(encoding="utf-8"))
    }
    rows = table("reference/layout-in-redis.md", "Our own fields")

    assert used == rows.keys()


def test_the_drawing_of_the_house_is_the_tree() -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    (drawing,) = re.findall(r"^```text\n(taskq_django/.*?)^```$", page, re.MULTILINE | re.DOTALL)
    rooms: dict[str, set[str]] = {}
    for line in drawing.splitlines():
        indent, names = re.match(r"( *)((?:\w+(?:/|\.py) +)*)", f"{line}  ").groups()  # type: ignore[union-attr] # fits any
        room = {"": "", "  ": "taskq_core/", "    ": "taskq_core/broker/"}[indent]
        rooms.setdefault(room, set()).update(names.split())
    assert rooms.pop("") == {"taskq_django/", "taskq_fastapi/", "taskq_core/"}

    for room, drawn in rooms.items():
        tree = {
            f"{path.name}/" if path.is_dir() else path.name
            for path in (ROOT / room).iterdir()
            if path.name not in ("__init__.py", "__pycache__") and (path.is_dir() or path.suffix == ".py")
        }
        assert drawn == tree, room


def test_every_service_of_a_worker_is_told_of() -> None:
    told = re.findall(
        r"^\| (\w+) \|", (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    names = {
        node.elts[0].value
        for path in (ROOT / "taskq_core/worker").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Tuple) and len(node.elts) == 2
        if isinstance(node.elts[0], ast.Constant) and isinstance(node.elts[1], ast.Attribute)
        if node.elts[1].attr == "work"
    }

    assert len(names) > 10
    assert not names - set(told)


LINES_MAX = 500
LONG = {
    "taskq_core/errors.py": "one tree, drawn at its top: who looks for an error looks here",
    "taskq_core/explanations.py": "one table: an entry for each error and warning",
    "taskq_core/inspector/sync.py": "the face of one class: each method is its docstring and a line that asks",
    "taskq_core/broker/operations/__init__.py": "names only: what the modules beside it define, for those who send it",
    "taskq_core/broker/lua/_flow.lua": "one machine of states, which several scripts hold whole",
    "taskq_core/worker/worker.py": "puts a worker together: the services in the order in which they start and end",
    "taskq_core/worker/fetcher.py": "one loop: what is asked for ahead, taken and sent along share its state",
}
"""Modules of more lines than that, and why each is better off in one piece."""


def test_a_long_module_has_a_reason() -> None:
    folders = ("taskq_core", "taskq_django", "taskq_fastapi", "scripts", "benchmarks", "example_project")
    lines = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".lua", ".js", ".css", ".html") and "node_modules" not in path.parts
    }

    long = {path: count for path, count in lines.items() if count > LINES_MAX}
    assert not {path: count for path, count in long.items() if path not in LONG}, (
        "split it where a second subject begins"
    )
    assert not LONG.keys() - long.keys(), "it needs no reason any more"


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names_ = {re.match(r"[\w-]+", each)[0] for each in wanted}  # type: ignore[index] # every requirement begins so
    page = (ROOT / "docs/explanation/dependencies.md").read_text(encoding="utf-8")
    named = {name for name in names_ if f"`{name}`" in page or "instrumentation" in name}

    assert names_ - named == {project["name"]}
    assert all(f"| `{extra}` |" in page for extra in project["optional-dependencies"] if extra != "all")


# --- pages that run ---------------------------------------------------------------------------------------------------


class Terminal:
    """A command of the tutorial that goes on in the background, its output in a file."""

    def __init__(self, command: str, folder: Path, number: int, **variables: str) -> None:
        self.path = folder.parent / f"terminal-{number}.log"
        with self.path.open("wb") as output:
            self.process = subprocess.Popen(
                command.split(),
                cwd=folder,
                env=environment(folder, **variables),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def shows(self, expected: str) -> None:
        """Wait until the output is as the page says."""
        deadline = time.monotonic() + 60
        while not matches(expected, self.path.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline, f"expected:\n{expected}\ngot:\n{self.path.read_text(encoding='utf-8')}"
            time.sleep(0.02)  # a look at a file, there is no event to wait for

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def matches(expected: str, output: str) -> bool:
    """Whether an output is as a page shows it, with `...` for anything, and with any further lines at the end."""
    checker = OutputChecker()
    lines = output.splitlines(keepends=True)
    return any(checker.check_output(expected, "".join(lines[:end]), ELLIPSIS) for end in range(len(lines), 0, -1))


def console(block: Block) -> tuple[str, str]:
    """Return the one command of a console block and the output shown below it."""
    command, _, output = block.text.partition("\n")
    assert command.startswith("$ ")
    return command.removeprefix("$ ").replace("python ", f"{sys.executable} "), output


@contextmanager
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    try:
        yield opened
    finally:
        for terminal in opened:
            if terminal.process.poll() is None:
                terminal.process.kill()
                terminal.process.wait()


@pytest.mark.redis
@pytest.mark.slow
def test_the_tutorial_works_as_written(tmp_path: Path) -> None:
    """Its files are written, its commands run in order, and each shows what the page says."""
    page = ROOT / "docs/tutorials/first-task.md"
    folder = tmp_path / "first-task"
    folder.mkdir()
    write_files(page, folder)
    send, words_worker, flaky_worker, flaky, *looks = (
        block for block in blocks(page) if block.mark in ("background", "foreground")
    )
    (result,) = (block.text for block in blocks(page) if block.mark == "result of send.py")

    with terminals() as opened:
        for number, block in enumerate((send, words_worker)):
            command, output = console(block)
            opened.append(Terminal(command, folder, number))
            opened[-1].shows(output)
        opened[0].shows(console(send)[1] + result)
        assert opened[0].process.wait(30) == 0
        assert opened[1].stop() == 0
        opened.append(Terminal(console(flaky_worker)[0], folder, 2))
        opened.append(Terminal(console(flaky)[0], folder, 3))
        assert opened[3].process.wait(60) == 0
        opened[3].shows(console(flaky)[1])
        opened[2].shows(console(flaky_worker)[1])
        assert opened[2].stop() == 0
        for number, block in enumerate(looks, len(opened)):
            command, output = console(block)
            opened.append(Terminal(command, folder, number))
            assert opened[-1].process.wait(60) == 0
            opened[-1].shows(output)
    assert len(looks) == 2


@pytest.mark.redis
def test_the_django_code_of_the_readme_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """A request enqueues the task, a worker runs it, and the mail is sent."""
    write_files(ROOT / "README.md", tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()

    output = run_python(
        tmp_path,
        """
        import django
        from django.conf import settings

        settings.configure(
            SECRET_KEY="docs",
            ALLOWED_HOSTS=["testserver"],
            INSTALLED_APPS=["taskq_django", "shop"],
            ROOT_URLCONF="urls",
            EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            TASKQ={"QUEUES": {"critical": 6, "default": 3}},
        )
        django.setup()
        import sys, types
        from django.core import mail
        from django.core.management import call_command
        from django.test import Client
        from django.urls import path
        from shop.views import signup

        sys.modules["urls"] = types.SimpleNamespace(urlpatterns=[path("signup/", signup)])
        answer = Client().post("/signup/", {"email": "a@b.c"})
        assert answer.status_code == 200 and answer.json()["task"], answer.content
        mail.outbox = []
        call_command("runworker", "--burst", verbosity=0)
        print([message.to for message in mail.outbox])
        """,
        TASKQ_URL=redis_server.unix_url,
    )

    assert output.strip() == "[['a@b.c']]"


@pytest.mark.redis
def test_the_code_of_the_page_on_djangos_tasks_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """A request enqueues one task now and one for later, a worker runs the first, and its state is told."""
    page = ROOT / "docs/how-to/use-django-tasks.md"
    write_files(page, tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()
    package = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
    code = tmp_path / "shop" / "tasks.py"
    code.write_text(code.read_text(encoding="utf-8").replace("django.tasks", package), encoding="utf-8")
    settings = [block.text for block in blocks(page) if block.text.startswith("# settings.py")]
    using = next(block.text for block in blocks(page) if block.text.startswith("from shop.tasks"))

    output = run_python(
        tmp_path,
        f"""
        import django, json, sys, types
        from django.conf import settings

        def read(text):
            found = {{}}
            exec(text, found)
            return found["TASKS"]

        TASKS, WITH_OPTIONS, WITH_BANDS = map(read, {settings!r})
        settings.configure(
            SECRET_KEY="docs",
            ALLOWED_HOSTS=["testserver"],
            INSTALLED_APPS=["taskq_django", "shop", *(["django_tasks"] if django.VERSION < (6, 0) else [])],
            ROOT_URLCONF="urls",
            EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
            DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
            USE_TZ=True,
            TASKQ={{}},
            TASKS=TASKS,
        )
        django.setup()
        from django.core import checks
        from django.core.management import call_command
        from django.test import Client, override_settings
        from django.urls import path
        from shop import tasks, views

        sys.modules["urls"] = types.SimpleNamespace(
            urlpatterns=[path("signup/", views.signup), path("<str:result_id>/", views.state)]
        )
        shipped = tasks.ship.enqueue(7)
        known = Client().post("/signup/", {{"email": "a@b.c"}}).json()["id"]
        call_command("runworker", "--burst", "--no-scheduler", verbosity=0)
        print(json.dumps(Client().get(f"/{{known}}/").json()))
        shipped.refresh()
        print(shipped.return_value)
        for other in (WITH_OPTIONS, WITH_BANDS):
            with override_settings(TASKS=other):
                print([each.id for each in checks.run_checks() if str(each.id).startswith("taskq.")])
        with override_settings(TASKS=WITH_OPTIONS):
            exec({using!r})
        """,
        TASKQ_URL=redis_server.unix_url,
    )

    state, shipped, *found = output.splitlines()
    assert json.loads(state) == {"status": "SUCCESSFUL", "attempts": 1}
    assert shipped == "order 7 is shipped, attempt 1"
    assert found == ["[]", "[]"]


@pytest.mark.redis
def test_the_fastapi_code_of_the_readme_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """A request enqueues the task, and a worker makes its result."""
    write_files(ROOT / "README.md", tmp_path)
    shutil.rmtree(tmp_path / "shop")  # the Django example's, of the same name

    output = run_python(
        tmp_path,
        """
        from fastapi.testclient import TestClient
        from shop import app, number_receipt, taskq
        from taskq_core.worker import Worker, WorkerConfig

        with TestClient(app) as client:
            answer = client.post("/orders/7")
        assert Worker(taskq, WorkerConfig(burst=True)).run() == 0
        (task,) = [answer.json()["task"]]
        from taskq_core.broker.operations import look
        stored = taskq.runtime.runner.run(look(taskq.runtime.keys.queue("default"), task))
        print(stored.state, stored.result.decode())
        taskq.close()
        """,
        TASKQ_URL=redis_server.unix_url,
    )

    assert output.strip() == 'completed "R-000007"'


@pytest.mark.redis
def test_a_full_queue_and_a_silent_redis_are_answered_as_the_page_says(tmp_path: Path) -> None:
    """503 with a time to try again; from FastAPI for either, and once the circuit is open at once."""
    write_files(ROOT / "docs/how-to/limit-a-queue.md", tmp_path)

    with RedisServer() as server:
        output = run_python(
            tmp_path,
            f"""
            import os, signal
            from fastapi.testclient import TestClient
            from shop.main import app
            from shop.queue import taskq
            from dataclasses import replace

            limits = {{**taskq.settings.limits, "images": 2}}
            slow = {{"FIRST_PAUSE": 60, "MAX_PAUSE": 60}}  # so that no try is due while this machine is busy
            def visit(times, patience_s):
                changes = {{"limits": limits, "enqueue_timeout": patience_s, "circuit_breaker": slow}}
                taskq.configure(replace(taskq.settings, url="{server.unix_url}", **changes))
                with TestClient(app) as web:
                    for _ in range(times):
                        answer = web.post("/images?path=x")
                        print(answer.status_code, answer.headers.get("retry-after"))
                    print(taskq.client.circuit_state)
            visit(3, 60)
            os.kill({server.pid}, signal.SIGSTOP)
            visit(6, 1)
            os.kill({server.pid}, signal.SIGCONT)
            """,
        )

    lines = output.splitlines()
    assert lines[:4] == ["202 None", "202 None", "503 30", "closed"]
    assert lines[4:9] == ["503 5"] * 5
    assert re.fullmatch("503 [1-6][0-9]", lines[9])
    assert lines[10:] == ["open"]


@pytest.mark.redis
def test_a_full_queue_is_answered_by_the_middleware_of_the_page(tmp_path: Path, redis_server: RedisServer) -> None:
    write_files(ROOT / "docs/how-to/limit-a-queue.md", tmp_path)

    output = run_python(
        tmp_path,
        f"""
        import django
        from django.conf import settings
        from django.http import HttpResponse
        from django.urls import path

        settings.configure(
            INSTALLED_APPS=["taskq_django"], ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"],
            DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
            MIDDLEWARE=["shop.middleware.TryAgainMiddleware"],
            TASKQ={{"URL": "{redis_server.unix_url}", "LIMITS": {{"default": 1}}, "ENQUEUE_TIMEOUT": 30}},
        )
        django.setup()
        from django.test import Client
        from taskq_django import task

        @task(name="resize")
        def resize(): ...

        def upload(request):
            resize.delay()
            return HttpResponse(status=202)

        urlpatterns = [path("images", upload)]
        for _ in range(2):
            answer = Client().post("/images")
            print(answer.status_code, answer.headers.get("Retry-After"))
        """,
    )

    assert output.splitlines() == ["202 None", "503 30"]


def run_blocks(page: str) -> dict[str, Any]:
    """Run the Python of a page, block after block, and return its names."""
    found: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(ROOT / "docs" / page):
        if block.language == "python":
            exec(compile(block.text, page, "exec"), found)
    return found


@pytest.mark.redis
async def test_the_handlers_of_the_how_to_run_what_came_from_elsewhere(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each type goes where the page says, and the failures are seen."""
    page = run_blocks("how-to/handle-tasks-from-elsewhere.md")
    taskq: TaskQ = page["taskq"]
    taskq.configure(Settings(url=redis_server.url, queues={"mail": 1}, enqueue_timeout=30))

    for name, arguments in (("email:welcome", {"to": "a@b.c"}), ("image:resize:large", {}), ("report", {})):
        await taskq.remote(name, queue="mail", headers={"tenant": "blue"}).adelay(**arguments)
    broken = await taskq.remote("email:receipt", queue="mail").adelay(to=1)
    assert await Worker(taskq, WorkerConfig(queues={"mail": 1}, burst=True)).arun() == 0
    unknown = [line for line in capsys.readouterr().out.splitlines() if line]
    await taskq.aclose()

    assert sorted(unknown) == sorted(
        [
            "email:welcome to a@b.c",
            "attempt 1, blue",
            f"task {broken.id} (email:receipt) failed for good: PayloadError",
            *(line for line in unknown if line.endswith("(report) failed for good: SkipRetry")),
        ]
    )
    assert len(unknown) == 4


@pytest.mark.redis
async def test_the_middleware_of_the_how_to_carries_the_tenant(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the one who enqueues to the run, and who is nobody is refused."""
    page = run_blocks("how-to/write-middleware.md")
    taskq: TaskQ = page["taskq"]
    seen: list[str] = []

    @taskq.task(name="look", queue="reports")
    def look() -> None:
        seen.append(page["tenant"].get())

    taskq.configure(Settings(url=redis_server.url, enqueue_timeout=30))
    with pytest.raises(PermissionError, match="look needs a tenant"):
        await look.adelay()
    page["tenant"].set("blue")
    await look.adelay()
    await page["build_report"].adelay(year=2033)
    assert await Worker(taskq, WorkerConfig(queues={"reports": 1}, burst=True)).arun() == 0
    await taskq.aclose()

    assert seen == ["blue"]
    assert capsys.readouterr().out == f"{page['build_report'].name} begins\n"


@pytest.mark.redis
def test_the_group_of_the_how_to_becomes_one_task(tmp_path: Path, redis_server: RedisServer) -> None:
    """A hundred notices to a user make one digest, at once."""
    write_files(ROOT / "docs/how-to/aggregate-tasks.md", tmp_path)

    output = run_python(
        tmp_path,
        """
        import os
        from shop.notices import taskq, tell
        from taskq_core import Settings
        from taskq_core.worker import Worker, WorkerConfig

        taskq.configure(Settings(url=os.environ["SHOP_REDIS"], enqueue_timeout=30))
        for number in range(101):
            tell(7, "news")
        assert Worker(taskq, WorkerConfig(burst=True)).run() == 0
        taskq.close()
        """,
        SHOP_REDIS=redis_server.unix_url,
    )

    assert output.strip() == f"to user:7: {', '.join(['news'] * 100)}"


def test_the_table_of_a_schedule_line_is_whole() -> None:
    rows = {word for cell in table("reference/settings.md", "SCHEDULE") for word in re.findall(r"\w+", cell)}

    assert set(schedule_setting._LINE_KEYS) <= rows


def test_the_entries_of_the_how_to_are_what_the_page_says(tmp_path: Path) -> None:
    """Those of its first file, of its settings, of its later blocks and of its provider."""
    page = ROOT / "docs/how-to/schedule-periodic-tasks.md"
    write_files(page, tmp_path)
    code = "\n".join(block.text for block in blocks(page) if block.language == "python" and "# shop/" not in block.text)

    output = run_python(
        tmp_path,
        code
        + """
from dataclasses import replace
taskq.configure(replace(settings, url="redis://localhost:1"))
found = [*taskq.periodic_tasks(), *taskq.timetable.providers[0].function()]
for each in sorted(found, key=lambda each: each.id):
    print(each.id.split(":")[0], "|", each.spec, "|", each.schedule("Europe/Berlin").text, "|", each.payload.decode())
""",
    )

    assert output.splitlines() == [
        "backup | 0 2 * * * | CRON_TZ=Europe/Berlin 0 2 * * * | {}",
        'nightly-report | 30 3 * * 1-5 | CRON_TZ=Europe/Berlin 30 3 * * 1-5 | {"kind":"sales"}',
        'report-ada | 0 8 * * * | CRON_TZ=Europe/Berlin 0 8 * * * | {"kind":"ada"}',
        'report-bob | @hourly | CRON_TZ=Europe/Berlin @hourly | {"kind":"bob"}',
        "shop.upkeep.back_up | 0 2 * * * | CRON_TZ=Europe/Berlin 0 2 * * * | {}",
        "shop.upkeep.check_stock | */5 * * * * | CRON_TZ=Europe/Berlin */5 * * * * | {}",
        'shop.upkeep.report | @every 1m | @every 1m | {"kind":"slow"}',
        'shop.upkeep.report | @hourly | CRON_TZ=Europe/Berlin @hourly | {"kind":"sales"}',
        'visits | @every 90s | @every 90s | {"kind":"visits"}',
    ]


@pytest.mark.redis
def test_the_code_of_the_page_on_inspecting_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """Its blocks work one after another on a queue with an archived task."""
    code = [block.text for block in blocks(ROOT / "docs/how-to/inspect-queues.md") if block.language == "python"]
    setting = """
from taskq_core import TaskQ
from taskq_core.inspector import Inspector

with_task = TaskQ.from_env()
with_task.client.enqueue(with_task.remote("email:welcome", task_id="welcome-7", run_after=60).s(to="a@b.c"))
with_task.client.enqueue(with_task.remote("email:welcome", task_id="welcome-8").s(to="d@e.f"))
Inspector(with_task).archive_task("default", "welcome-8")
with_task.close()
"""

    output = run_python(tmp_path, "\n".join((setting, *code[:-1])), TASKQ_URL=redis_server.unix_url)

    assert output == "default 2 1 None\n1 of 1\n"
    assert redis_server.client.smembers("asynq:queues") == {b"slow"}
    ast.parse(code[-1])  # of a queue that is gone by now


def test_the_tests_of_the_page_on_tests_pass(tmp_path: Path) -> None:
    """Its files are written and run by pytest; its block for FastAPI runs beside them."""
    page = ROOT / "docs/how-to/test-your-tasks.md"
    write_files(page, tmp_path)
    (options,) = (block.text for block in blocks(page) if block.language == "toml")
    (tmp_path / "pyproject.toml").write_text(options, encoding="utf-8")
    (fastapi,) = (block.text for block in blocks(page) if block.text.startswith("from fastapi"))

    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    run_python(tmp_path, fastapi)


@pytest.mark.redis
def test_the_page_on_dependencies_says_what_happens(tmp_path: Path, redis_server: RedisServer) -> None:
    """Its tests pass, and a worker runs its tasks: a session that commits, and a client of the lifespan."""
    write_files(ROOT / "docs/how-to/use-depends-in-tasks.md", tmp_path)

    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    output = run_python(
        tmp_path,
        f"""
        import sqlite3
        from dataclasses import replace
        from shop import clients, tasks, tenants
        from shop.queue import taskq
        from taskq_core.testing import drain

        taskq.configure(replace(taskq.settings, url="{redis_server.unix_url}", enqueue_timeout=30))
        db = sqlite3.connect("shop.db")
        db.execute("CREATE TABLE orders (id INTEGER, paid INTEGER)")
        db.execute("INSERT INTO orders VALUES (7, 0)")
        db.commit()
        handles = [tasks.pay.delay(7), clients.ship.delay(7)]
        tenants.bill.delay()
        print([run.outcome for run in drain(taskq)])
        handles.append(tasks.count.delay())
        drain(taskq)
        print([handle.result() for handle in handles])
        """,
    )

    assert output.splitlines() == ["['completed', 'completed', 'completed']", "[7, 'https://example.com', 1]"]


def test_the_tests_of_the_page_on_tests_in_django_pass(tmp_path: Path) -> None:
    """By Django's own runner and by pytest."""
    write_files(ROOT / "docs/how-to/test-django-tasks.md", tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop_settings.py").write_text(
        """
SECRET_KEY = "docs"
INSTALLED_APPS = ["taskq_django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db", "TEST": {"NAME": "test"}}}
DATABASES["default"]["OPTIONS"] = {"timeout": 20}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TASKQ = {"URL": "redis://127.0.0.1:1/0"}
"""
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_files = test*.py\n")
    for words, said in (
        (("django", "test", "shop"), "Ran 6 tests"),
        (("pytest", "-q", "-p", "no:cacheprovider"), "8 passed"),
    ):
        done = subprocess.run(
            (sys.executable, "-m", *words),
            cwd=tmp_path,
            env=environment(tmp_path, DJANGO_SETTINGS_MODULE="shop_settings"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert said in done.stdout


CONTINUED = ("how-to/build-workflows.md", "how-to/limit-tasks.md")
"""Pages on which a piece of code goes on from those above it."""


@pytest.mark.parametrize(
    "page",
    [
        "reference/task-options.md",
        "reference/settings.md",
        "how-to/aggregate-tasks.md",
        "how-to/keep-tasks-unique.md",
        "how-to/schedule-periodic-tasks.md",
        "how-to/share-with-go.md",
        "how-to/limit-with-a-semaphore.md",
        "how-to/repair-damage.md",
        "how-to/fastapi.md",
        "how-to/serve-the-json-api.md",
        "how-to/run-the-dashboard.md",
        "how-to/build-workflows.md",
        "how-to/control-tasks.md",
        "how-to/follow-a-task.md",
        "how-to/limit-tasks.md",
        "how-to/log-tasks.md",
        "how-to/run-a-worker.md",
    ],
)
def test_code_that_needs_no_server_can_be_imported(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decorators, options and settings on these pages are accepted."""
    monkeypatch.syspath_prepend(str(tmp_path))
    write_files(ROOT / "docs" / page, tmp_path)

    known: dict[str, object] = {}
    for block in blocks(ROOT / "docs" / page):
        if block.language == "python":
            known = {**(known if page in CONTINUED else {}), "__name__": f"docs_{tmp_path.name}"}
            exec(compile(block.text, page, "exec"), known)
    for name in [name for name in sys.modules if name == "shop" or name.startswith("shop.")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "page",
    [
        "export-metrics",
        "pass-model-instances",
        "schedule-from-the-admin",
        "send-mail",
        "tracing",
        "use-the-admin",
        "use-the-outbox",
    ],
)
def test_code_for_django_runs_in_a_project(page: str, tmp_path: Path) -> None:
    """In a process of its own, for it registers tasks and models. What it needs of the shop is given."""
    write_files(ROOT / f"docs/how-to/{page}.md", tmp_path)
    given = {
        "__init__": "",
        "models": """
            from django.db import models


            class Order(models.Model):
                email = models.EmailField()
            """,
        "tasks": """
            from taskq_django import task


            @task(name="order:confirm")
            def confirm_order(order: int) -> None: ...
            """,
    }
    (tmp_path / "shop").mkdir(exist_ok=True)
    for name, text in given.items():
        if not (path := tmp_path / "shop" / f"{name}.py").exists():
            path.write_text(textwrap.dedent(text))
    files = [name for name in files_of(ROOT / f"docs/how-to/{page}.md") if name.endswith(".py")]
    pieces = [
        each.text
        for each in blocks(ROOT / f"docs/how-to/{page}.md")
        if each.language == "python"
        and not each.text.startswith(tuple(f"# {name}\n" for name in files))
        and "from unfold" not in each.text  # a theme, which is not installed here
    ]
    assert files or pieces

    run_python(
        tmp_path,
        f"""
        import importlib

        import django
        from django.conf import settings
        from django.core.management import call_command

        needed = ("auth", "contenttypes", "messages", "admin")
        settings.configure(
            INSTALLED_APPS=[*(f"django.contrib.{{name}}" for name in needed), "taskq_django", "shop"],
            DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
            USE_TZ=True,
            TASKQ={{"ENQUEUE": "outbox"}},
        )
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        for name in {[name.removesuffix(".py").replace("/", ".") for name in files]!r}:
            importlib.import_module(name)
        for text in {pieces!r}:
            exec(text, {{"__name__": "page"}})
        """,
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )


@pytest.mark.redis
def test_the_command_line_page_shows_what_the_commands_say(tmp_path: Path, redis_server: RedisServer) -> None:
    """The commands of the blocks marked so run in order, each as its own process."""
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)

    @app.task(name="shop:ship", max_retry=0)
    def ship(order: int) -> None:
        raise ValueError("no such order")

    app.remote("shop:ship", max_retry=0, task_id="order-7").delay(b'{"order": 7}')
    assert Worker(app, WorkerConfig(burst=True)).run() == 0
    app.remote("shop:ship").delay(order=1)
    app.remote("shop:ship", queue="low").delay(order=2)
    app.close()

    for block in blocks(ROOT / "docs/how-to/operate-from-the-command-line.md"):
        if block.mark != "run":
            continue
        for command, _, expected in (part.partition("\n") for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]):
            done = subprocess.run(
                shlex.split(command),
                cwd=tmp_path,
                env=environment(tmp_path, TASKQ_URL=redis_server.unix_url),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert matches(expected, done.stdout), f"{command}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, command


def test_every_name_in_a_json_document_is_listed() -> None:
    source = (ROOT / "taskq_core/cli/documents.py").read_text(encoding="utf-8")
    names_ = {
        key.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")

    assert not {name for name in names_ if f"`{name}`" not in page}


def test_the_comparison_of_the_readme_is_that_of_its_page() -> None:
    """Mark by mark; and each project has a section with its sources."""
    page = (ROOT / "docs" / "reference" / "comparison.md").read_text()
    tables = []
    for text in (page, (ROOT / "README.md").read_text()):
        rows = text[text.index("| | taskq |") :].split("\n\n")[0].splitlines()
        tables.append([re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", row) for row in rows])

    assert tables[0] == tables[1]
    marks = {cell.strip() for row in tables[0][2:] for cell in row.split("|")[2:-1]}
    assert marks <= {"yes", "part", "paid", "\N{EN DASH}"}
    for name in ("Asynq", "Machinery", "River", "Celery", "Sidekiq", "Oban", "BullMQ"):
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert "](https://" in section, name
