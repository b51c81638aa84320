"""The pages say what is true: their code runs, their tables list what there is, their links lead somewhere."""

import ast
import importlib
import inspect
import os
import re
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

import pytest

import taskq_core
from taskq_core import TaskQ, errors
from taskq_core.cli.command import _parser
from taskq_core.options import TaskOptions
from taskq_core.settings import Settings, TraceSettings
from taskq_core.telemetry import names
from taskq_core.wire import Keys
from taskq_core.worker import WorkerConfig
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
    return field.default if field.default_factory is MISSING else field.default_factory()


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment in which this project's commands are found and nothing of the caller's interferes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "OTEL_", "DJANGO_"))}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**kept, "PATH": path, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1", **more}


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
        ("reference/settings.md", "TRACE", TraceSettings, True),
        ("reference/settings.md", "WorkerConfig", WorkerConfig, False),
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
        if isinstance(default, TraceSettings):
            assert shown == "see below"
        elif isinstance(default, str):
            assert shown == f'"{default}"'
        else:
            assert ast.literal_eval(shown) == (dict(default) if isinstance(default, Mapping) else default), name


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

    assert not {name for name in public if f"| `{name}` |" not in text}


def test_every_option_of_the_worker_command_is_listed() -> None:
    parser = _parser()
    (commands,) = (action for action in parser._actions if hasattr(action, "choices") and action.choices)
    worker: Any = dict(commands.choices or {})["worker"]  # type: ignore[call-overload] # choices of subparsers is a dict
    options = {text for action in worker._actions for text in action.option_strings} - {"-h", "--help"}
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")

    assert not {option for option in options if f"`{option}" not in page}


def test_every_metric_and_attribute_is_listed() -> None:
    known = {
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and value.startswith(("asynq.", "messaging.", "server.", "error."))
    }
    page = (ROOT / "docs/how-to/tracing.md").read_text(encoding="utf-8")

    assert not {name for name in known if f"`{name}`" not in page}


def test_every_key_of_a_queue_is_listed() -> None:
    keys = Keys().queue("Q")
    built = {value for slot in keys.__slots__ if isinstance(value := getattr(keys, slot), str) and value.count(":") > 1}
    built |= {keys.receipt("<connection>"), keys.call("<worker>"), keys.leader("<service>"), keys.quarantined("<id>")}
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
    drawn = set(re.findall(r"(?:^  |(?<=\w  )|(?<=py  ))(\w+(?:/|\.py))", drawing, re.MULTILINE))
    tree = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "taskq_core").iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or (path.suffix == ".py" and path.name != "__init__.py")
    }

    assert drawn == tree


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

    def __init__(self, command: str, folder: Path, number: int) -> None:
        self.path = folder.parent / f"terminal-{number}.log"
        with self.path.open("wb") as output:
            self.process = subprocess.Popen(
                command.split(), cwd=folder, env=environment(folder), stdout=output, stderr=subprocess.STDOUT
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
    send, words_worker, flaky_worker, flaky = (
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


@pytest.mark.parametrize(
    "page", ["reference/task-options.md", "reference/settings.md", "how-to/share-with-go.md", "how-to/fastapi.md"]
)
def test_code_that_needs_no_server_can_be_imported(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decorators, options and settings on these pages are accepted."""
    monkeypatch.syspath_prepend(str(tmp_path))
    write_files(ROOT / "docs" / page, tmp_path)

    for block in blocks(ROOT / "docs" / page):
        if block.language == "python":
            exec(compile(block.text, page, "exec"), {"__name__": f"docs_{tmp_path.name}"})
    for name in [name for name in sys.modules if name == "shop" or name.startswith("shop.")]:
        del sys.modules[name]
