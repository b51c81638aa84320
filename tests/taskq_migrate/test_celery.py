"""Celery's code becomes taskq's: whole projects as golden files, single pieces, and what must be left alone.

`tests/golden/celery/<project>/before` is what people have, `after` what the command makes of it. A person has looked at
each; the tests compare, and run what came out on taskq.
"""

import cProfile
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from taskq_core.cli import main
from taskq_core.errors import ConfigurationError
from taskq_migrate import Change, Target, migrate_celery
from taskq_migrate.schedules import spec_of
from taskq_migrate.settings import _NEEDLESS, current_name
from taskq_migrate.source import CannotTranslateError

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "celery"
PROJECTS = {"django": ("shop", "django"), "core": ("pipeline", "pipeline.queue:taskq")}


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.py"))}


def copied(project: str, tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / project / "before", tmp_path / "project")
    return tmp_path / "project"


def migrated(text: str, tmp_path: Path, *, to: str = "shop.queue:taskq", name: str = "shop/tasks.py") -> Change:
    """Return what becomes of one file."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(textwrap.dedent(text).encode())
    (change,) = (each for each in migrate_celery([tmp_path], Target.parse(to)).changes if each.path == path)
    return change


def translated(cases: list[str], tmp_path: Path, *, head: str, to: str = "shop.queue:taskq") -> list[str]:
    """Return what becomes of pieces of one file."""
    change = migrated(head + "".join(f"# case\n{case}\n" for case in cases), tmp_path, to=to)
    assert not change.error
    compile(change.new, "x", "exec")
    return [piece.removesuffix("\n") for piece in change.new.split("# case\n")[1:]]


def unmarked(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "# TODO taskq: " not in line)


# --- whole projects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", PROJECTS)
def test_a_migrated_project_matches_the_golden_files(
    project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `--write` it prints a patch that makes the same of the files."""
    folder, target = PROJECTS[project]
    monkeypatch.chdir(copied(project, tmp_path))

    assert main(["migrate", "celery", folder, "--to", target]) == 0

    assert files(Path(".")) == files(GOLDEN / project / "before")
    printed = capsys.readouterr()
    assert "nothing was written; --write changes the files" in printed.err
    if shutil.which("patch"):
        shutil.copytree(".", tmp_path / "patched")
        subprocess.run(
            ("patch", "-p0", "--quiet", "-d", tmp_path / "patched"), input=printed.out, text=True, check=True
        )
        assert files(tmp_path / "patched") == files(GOLDEN / project / "after")

    assert main(["migrate", "celery", folder, "--to", target, "--write"]) == 0

    assert files(Path(".")) == files(GOLDEN / project / "after")


@pytest.mark.parametrize("project", PROJECTS)
def test_a_second_run_changes_nothing(project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, target = PROJECTS[project]
    shutil.copytree(GOLDEN / project / "after", tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")

    found = migrate_celery([Path(folder)], Target.parse(target))

    assert not found.changed
    assert not found.failed


def test_a_second_run_adds_no_marks(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """On a second run, the file has tasks of both libraries, so the library of the call is unknown."""
    for call in ["add.apply_async((1, 2), priority=5)", "chord([add.s(1, 2)], add.s(3)).apply_async(countdown=5)"]:
        with subtests.test(call=call):
            tasks = "@shared_task\ndef add(x, y): ...\n\n\n@shared_task\ndef left(x, /): ...\n"
            text = f"from celery import chord, current_app, shared_task\n\nprint(current_app)\n\n\n{tasks}\n\n{call}\n"
            first = migrated(text, tmp_path)
            assert first.marks

            second = migrated(first.new, tmp_path)

            assert not second.is_change


# --- single pieces ----------------------------------------------------------------------------------------------------

HEAD = """from celery import shared_task


@shared_task
def f(a=1, b=2):
    return a


@shared_task
def g(a=1):
    return a


"""
NEW_HEAD = HEAD.replace("from celery import shared_task", "from shop.queue import taskq").replace(
    "@shared_task", "@taskq.task(max_retry=0)"
)


def test_a_call_is_translated_or_marked(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """If the expected text is None, the call stays unchanged below a comment."""
    cases = [
        ("f.delay(1)", "f.delay(1)"),
        ("f.apply_async()", "f.delay()"),
        ("f.apply_async((1,), {'b': 2})", "f.delay(1, b=2)"),
        ("f.delay_on_commit(1)", "f.delay(1)"),
        ("f.apply_async_on_commit((1,), countdown=5)", "f.using(run_after=5).delay(1)"),
        ("print(f'{f.apply_async([1]).id}')", "print(f'{f.delay(1).id}')"),
        ("f.apply_async(kwargs={'b': 2}, args=[1])", "f.delay(1, b=2)"),
        ("f.apply_async(args=rest)", "f.delay(*rest)"),
        ("f.apply_async(kwargs=more)", "f.delay(**more)"),
        ("f.apply_async(kwargs={'not a name': 2})", "f.delay(**{'not a name': 2})"),
        ("f.apply_async(kwargs={'class': 2})", "f.delay(**{'class': 2})"),
        ("f.apply_async([1], countdown=5)", "f.using(run_after=5).delay(1)"),
        ("f.apply_async([1], eta=when, queue='q')", "f.using(run_after=when, queue='q').delay(1)"),
        ("f.apply_async([1], expires=60, task_id='x')", "f.using(expires=60, task_id='x').delay(1)"),
        ("f.apply_async([1], None, 'x')", "f.using(task_id='x').delay(1)"),
        ("f.apply_async([1], countdown=None)", "f.delay(1)"),
        ("f.apply_async([1], retry=True, retry_policy={})", "f.delay(1)"),
        ("f.apply_async([1], ignore_result=True)", "f.using(retention=0).delay(1)"),
        ("f.apply_async([g.apply_async([1]).id])", "f.delay(g.delay(1).id)"),
        ("f.delay(1).get(timeout=3)", "f.delay(1).result(timeout=3)"),
        ("f.apply_async([1]).get(3)", "f.delay(1).result(timeout=3)"),
        ("f.s(1).apply_async(countdown=2)", "f.s(1).using(run_after=2).delay()"),
        ("f.si(1).set(queue='q').delay()", "f.si(1).using(queue='q').delay()"),
        ("(f.s(1) | g.s()).apply_async()", "(f.s(1) | g.s()).delay()"),
        ("(f.s(1) | g.s())()", "(f.s(1) | g.s()).delay()"),
        ("handle = f.delay(1)\nhandle.get()", "handle = f.delay(1)\nhandle.result()"),
        ("work = f.s(1) | g.s()\nwork()", "work = f.s(1) | g.s()\nwork.delay()"),
        ("# ä ö\nx = 'ü'; f.apply_async(('ß',))", "# ä ö\nx = 'ü'; f.delay('ß')"),
        (
            "f.apply_async(\n    args=(\n        1,  # one\n    ),\n)",
            "# one\nf.delay(1)",
        ),
        ("f.apply_async((1,), link=g.s(2))", "f.s(1).on_success(g.s(2)).delay()"),
        (
            "f.apply_async((1,), countdown=5, link=[g.s(), g.si(2).set(queue='q')], link_error=g.si(3))",
            "f.s(1).using(run_after=5).on_success(g.s(), g.si(2).using(queue='q')).on_error(g.si(3)).delay()",
        ),
        ("f.s(1).apply_async(link=g.s())", "f.s(1).on_success(g.s()).delay()"),
        ("f.s(1).on_error(g.si(3)).delay()", "f.s(1).on_error(g.si(3)).delay()"),
        ("a = [f.s(1)]\ngroup(a)()", "a = [f.s(1)]\ngroup(a).delay()"),
        ("celery.group(f.s(1)).delay()", "group(f.s(1)).delay()"),
        ("current_app.send_task('shop.tasks.g', [1])", 'taskq.remote("shop.tasks.g", max_retry=0).delay(a=1)'),
        ("f.apply((1,))", None),
        ("f.delay(1).get(propagate=False)", None),
        ("f.delay(1).ready()", None),
        ("unknown.apply_async((1,))", None),
        ("current_app.send_task(name)", None),
        ("current_app.control.revoke('id')", None),
        ("current_app.AsyncResult('id')", None),
        ("f.max_retries", None),
    ]
    imports = "import celery\nfrom celery import current_app, group, shared_task"
    results = translated(
        [before for before, _ in cases], tmp_path, head=HEAD.replace("from celery import shared_task", imports)
    )
    for (before, after), new in zip(cases, results, strict=True):
        with subtests.test(before=before):
            assert unmarked(new) == (before if after is None else after)
            assert new.count("# TODO taskq: ") == (after is None)


def test_a_task_stays_with_celery_if_a_call_of_it_cannot_be_translated(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """The call and the task have a comment, and all other calls of the task are as they were."""
    for number, call in enumerate(
        [
            "f.apply_async((1,), priority=3)",
            "f.apply_async((1,), link_error=g.s())",  # Celery hands on the request, the error and the traceback
            "f.apply_async((1,), link=unknown)",
            "f.apply_async((1,), link=g.s(), task_id='x')",
            "kept = f.apply_async((1,), link=g.s())",  # which would be the handle of a workflow
            "f.apply_async((1,), **options)",
            "f.apply_async(*everything)",
            "f.apply_async((1,), countdown=1, eta=when)",
            "call = f.apply_async",
            "f.chunks([(1,)], 2)",
            "f.map([1])",
            "f.starmap([(1, 2)])",
            "f.subtask((1,))",
            "f.s(1).apply_async((2,))",
            "f.s(1).delay(2)",
            "f.s(1).link(g.s())",
            "f.s(1).clone()",
            "f.s(1).on_error(g.s())",
            "work = f.s(1)\nwork.on_error(g.si(1))",  # which changes the signature in place
            "(f.s(1) | g.s()).apply_async(link=g.s())",
            "(f.s(1) | g.s()).apply_async(countdown=5, link_error=g.s())",
            "(f.s(1) | g.s()).set(queue='q')",
            "chain(f.s(1), g.s())(2)",
            "chord([f.s(1)])(g.s(), interval=3)",
            "chunks(f.s(), [(1,)], 10)",
            "handle = current_app.send_task('shop.tasks.f')",
            "current_app.send_task('shop.tasks.f', priority=3)",
            "queue().send_task('shop.tasks.f')",
            "signature('shop.tasks.f', (1,)).delay()",
            "current_app.signature('shop.tasks.f').delay()",
            "current_app.tasks['shop.tasks.f'].delay(1)",
        ]
    ):
        with subtests.test(call=call):
            imports = "chain, chord, current_app, group, shared_task, signature\nfrom celery.canvas import chunks"
            head = HEAD.replace("import shared_task", f"import {imports}")
            others = "f.apply_async((1,), countdown=3)\ngroup([f.s(1)]).apply_async()\n"
            before = f"{head}{call}\n{others}"

            change = migrated(before, tmp_path / str(number))

            after = unmarked(change.new).replace("@taskq.task(max_retry=0)\ndef g", "@shared_task\ndef g")
            assert after.partition("\n\n")[2] == before.removesuffix("\n").partition("\n\n")[2]
            assert [mark for _, mark in change.marks if mark.startswith("f remains a Celery task: a call in ")]
            above = change.new.partition(call.rpartition("\n")[2])[0].splitlines()[-1]
            assert above.startswith("# TODO taskq: "), above
            assert not change.marks[-1][1].startswith("f ")


def test_a_workflow_is_translated_as_a_whole_or_stays_with_celery(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """`left` cannot be rewritten, so `f` in the same workflow is not, nor `h`, which is in a workflow with `f`."""
    for number, workflow in enumerate(
        [
            "group(left.s(1), f.s(1)).delay()",
            "group([left.s(1), f.s(1)])()",
            "chain(left.s(1), group(f.s(each) for each in range(3)))()",
            "chord([left.s(1)], f.s())()",
            "chord([left.s(1)])(f.s())",
            "(left.s(1) | f.s()).apply_async(countdown=3)",
            "steps = [left.s(1), f.s()]\nchain(*steps)()",
            "first, last = left.s(1), f.s()\nwork = left.s(1)\nchain(work, f.s())()",
            "steps = []\nsteps.append(left.s(1))\nsteps.append(f.s(1))\ndef h2():\n    steps = []\n"
            "    steps.append(left.s())\n    steps.append(f.s())\n    return group(steps)",
            "left.apply_async((1,), link=f.s())",
            "left.s(1).on_error(f.si(1)).delay()",
        ]
    ):
        with subtests.test(workflow=workflow):
            text = f"""from celery import chain, chord, group, shared_task


@shared_task(base=Mine)
def left(a): ...


@shared_task
def f(a): ...


@shared_task
def h(a): ...


@shared_task
def other(a): ...


{workflow}
chain(f.s(1), h.s())()
group(other.s(1))()
"""
            change = migrated(text, tmp_path / str(number))

            compile(change.new, "x", "exec")
            assert change.new.count("@shared_task") == 3
            assert f"\n{workflow}\nchain(f.s(1), h.s())()\n" in unmarked(change.new)
            assert "@taskq.task(max_retry=0)\ndef other" in change.new
            marks = [mark for _, mark in change.marks]
            assert "f remains a Celery task: a workflow contains it and left, which also remains a Celery task" in marks
            assert "h remains a Celery task: a workflow contains it and f, which also remains a Celery task" in marks
            is_mixed = "group(" in workflow
            assert f"{'taskq_group' if is_mixed else 'group'}(other.s(1)).delay()\n" in change.new
            assert ("group as taskq_group" in change.new) == is_mixed


def test_a_task_is_rewritten_when_its_call_was_changed_by_hand(tmp_path: Path) -> None:
    first = migrated(HEAD + "f.apply_async((1,), priority=3)\n", tmp_path)
    assert first.new.count("@shared_task") == 1
    lines = [line for line in first.new.splitlines() if "priority: " not in line or "f remains" in line]

    second = migrated("\n".join(lines).replace(", priority=3", "") + "\n", tmp_path)

    assert not second.marks
    assert second.new == NEW_HEAD + "f.delay(1)\n"


APP = """from celery import Celery

app = Celery("shop")
app.conf.task_default_queue = "shop"


@app.task(max_retries=5, autoretry_for=(OSError,), time_limit=60, ignore_result=True)
def f(a=1, b=2):
    return a


@app.task(rate_limit="1/s")
def limited(a=1):
    return a


@app.task(base=Special)
def special(a=1):
    return a


"""


def test_a_task_sent_by_name_has_the_options_of_its_other_calls(tmp_path: Path, subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, str | None]] = [
        (
            "app.send_task('shop.tasks.f', args=[1], kwargs={'b': 2}, countdown=5)",
            'taskq.remote("shop.tasks.f", run_after=5, retention=0, timeout=60, max_retry=5).delay(a=1, b=2)',
        ),
        (
            "app.send_task('shop.tasks.f', (1,), queue='q', time_limit=9).id",
            "taskq.remote(\"shop.tasks.f\", queue='q', timeout=9, retention=0, max_retry=5).delay(a=1).id",
        ),
        ("app.send_task('billing.tasks.charge', kwargs={'a': 1})", None),  # whose program may stay Celery's
        ("app.send_task(name, kwargs={'a': 1})", None),
        (
            "app.send_task('shop.tasks.special', kwargs={'a': 1})",
            "app.send_task('shop.tasks.special', kwargs={'a': 1})",
        ),
    ]
    results = translated([before for before, _ in cases], tmp_path, head=APP)
    for (before, after), new in zip(cases, results, strict=True):
        with subtests.test(before=before):
            assert unmarked(new) == (after or before)
            assert ("# TODO taskq: " in new) == (after is None)


def test_a_task_stays_with_celery_if_a_call_by_name_cannot_be_translated(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for call in [
        "app.send_task('shop.tasks.f', args=rest)",
        "app.send_task('shop.tasks.f', [1, 2, 3])",
        "app.send_task('shop.tasks.f', priority=3)",
        "app.send_task('shop.tasks.f').get()",
        "app.send_task('shop.tasks.limited', kwargs={'a': 1})",  # a call by name would not be counted
    ]:
        with subtests.test(call=call):
            name = "limited" if "limited" in call else "f"

            change = migrated(f"{APP}{call}\n", tmp_path)

            assert change.new.endswith(f"\n{call}\n")
            assert f"{name} remains a Celery task: a call in " in change.new


def test_a_call_by_name_names_the_option_that_it_cannot_have(tmp_path: Path) -> None:
    new = migrated(APP + "app.send_task('shop.tasks.limited', kwargs={'a': 1})\n", tmp_path).new

    assert (
        "# TODO taskq: send_task: a call by name does not pass the rate_limit of shop.tasks.limited; "
        "import the task and call it"
    ) in new.splitlines()


ROUTES = {
    "a dict": ("{'shop.tasks.send': {'queue': 'mail'}, 'shop.tasks.*': {'queue': 'shop'}}", '"mail"', '"shop"'),
    "a pattern that comes first": ("{'*.other': {'queue': 'a'}, 'shop.*': {'queue': 'b'}}", '"b"', '"a"'),
    "a list of pairs": ("[('shop.tasks.send', {'queue': 'm'}), ('shop.*', 'b')]", '"m"', '"b"'),
    "a list of dicts, the first wins": ("[{'*.send': 'm'}, {'*.send': 'x', '*.other': 'b'}]", '"m"', '"b"'),
    "a name before its pattern": ("{'shop.*': {'queue': 'b'}, 'shop.tasks.send': {'queue': 'm'}}", '"m"', '"b"'),
}


def test_routes_become_queues_of_tasks_without_a_queue(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for case in ROUTES:
        with subtests.test(case=case):
            routes, sent, other = ROUTES[case]
            change = migrated(
                f"""
        from celery import Celery

        app = Celery("shop")
        app.conf.task_routes = {routes}


        @app.task
        def send(): ...


        @app.task
        def other(): ...


        @app.task(queue="own")
        def own(): ...
        """,
                tmp_path,
            )

            assert f"@taskq.task(max_retry=0, queue={sent})\ndef send" in change.new
            assert f"@taskq.task(max_retry=0, queue={other})\ndef other" in change.new
            assert '@taskq.task(queue="own", max_retry=0)\ndef own' in change.new
            assert "TODO taskq: task_routes" not in change.new
            assert any("task_routes is not needed" in note for _, note in change.notes)


def test_routes_that_match_no_task_are_marked(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for routes, mark in [
        (
            "{'shop.tasks.send': {'queue': 'a'}, 'billing.*': {'queue': 'b'}}",
            "no rewritten task has the name billing.*",
        ),
        ("{'shop.tasks.send': {'exchange': 'a'}}", "the route of shop.tasks.send has no literal queue"),
        ("{'shop.tasks.send': {'queue': 'a', 'exchange': 'b'}}", "shop.tasks.send: exchange: no equivalent"),
        ("{'shop.tasks.send': {'queue': 'a'}, 'x': {'queue': 'b', 'priority': 3}}", "x: priority: taskq's option"),
        ("({'shop.tasks.send': {'queue': 'a'}}, route_task)", "route_task is not a literal route"),
        ("{'shop.tasks.send': {'queue': 'a'}, re.compile('x'): 'b'}", "the route of ... has no literal queue"),
        ("ROUTES", "ROUTES is not a literal route"),
    ]:
        with subtests.test(routes=routes, mark=mark):
            head = "from celery import Celery\n\napp = Celery('shop')\n"
            text = f"{head}app.conf.update(task_routes={routes})\n\n\n@app.task\ndef send(): ...\n"

            new = migrated(text, tmp_path).new

            assert f"# TODO taskq: task_routes: {mark}" in new
            assert ("queue=" in new.partition("def send")[0].rpartition("@")[2]) == (
                "shop.tasks.send': {'queue'" in routes
            )


def test_code_without_celery_is_not_changed(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """The file has nothing to do with tasks."""
    for before in [
        "pool.apply_async(print, (1,))",
        "class A:\n    def delay(self): ...\n    def retry(self): ...",
        "response.get(timeout=3)",
        "thing.s(1)",
        "settings.set(queue='q')",
    ]:
        with subtests.test(before=before):
            change = migrated(before + "\n", tmp_path)

            assert not change.is_change
            assert not change.marks


def test_a_decorator_is_translated_or_the_task_stays_with_celery(tmp_path: Path, subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, str | None]] = [
        ("", "(max_retry=0)"),
        ("()", "(max_retry=0)"),
        ("(name='x')", "(name='x', max_retry=0)"),
        ("(acks_late=True)", "(no_retry_on=Exception)"),
        ("(ignore_result=True, queue='q')", "(retention=0, queue='q', max_retry=0)"),
        ("(time_limit=9)", '(timeout=9, executor="process", max_retry=0)'),
        ("(time_limit=9, soft_time_limit=8)", '(timeout=8, executor="process", max_retry=0)'),
        ("(rate_limit='10/m')", '(rate_limit="10/m", max_retry=0)'),
        ("(rate_limit=10)", '(rate_limit="10/s", max_retry=0)'),
        ("(autoretry_for=(Exception,))", "(max_retry=3, retry_delay=180)"),
        ("(autoretry_for=(OSError,), max_retries=7)", "(max_retry=7, retry_on=(OSError,), retry_delay=180)"),
        (
            "(autoretry_for=(OSError,), retry_backoff=True)",
            "(max_retry=3, retry_on=(OSError,), retry_delay=exponential(1, limit=600))",
        ),
        (
            "(autoretry_for=(OSError,), retry_backoff=2, retry_backoff_max=9, retry_jitter=False)",
            "(max_retry=3, retry_on=(OSError,), retry_delay=exponential(2, limit=9, jitter=False))",
        ),
        (
            "(autoretry_for=(OSError,), retry_kwargs={'max_retries': 1, 'countdown': 4})",
            "(max_retry=1, retry_on=(OSError,), retry_delay=4)",
        ),
        (
            "(autoretry_for=(OSError,), dont_autoretry_for=(ConnectionError,))",
            "(no_retry_on=(ConnectionError,), max_retry=3, retry_on=(OSError,), retry_delay=180)",
        ),
        ("(base=Mine)", None),
        ("(serializer='pickle')", None),
        ("(priority=3)", None),
        ("(**options)", None),
        ("(max_retries=None, autoretry_for=(OSError,))", None),
        ("(rate_limit='often')", None),
    ]
    functions = [f"@shared_task{decorator}\ndef f{number}():\n    pass" for number, (decorator, _) in enumerate(cases)]
    results = translated(functions, tmp_path, head="from celery import shared_task\n\n\n")
    for (decorator, expected), before, new in zip(cases, functions, results, strict=True):
        with subtests.test(decorator=decorator):
            assert unmarked(new) == (
                before if expected is None else before.replace(f"@shared_task{decorator}", f"@taskq.task{expected}")
            )
            assert ("remains a Celery task: " in new) == (expected is None)


def test_the_body_of_a_bound_task_is_translated_or_the_task_stays_with_celery(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[str, str | None]] = [
        ("return self.request.id", "return self.id"),
        ("return self.request.retries", "return self.retried"),
        ("return self.max_retries", "return self.max_retry"),
        ("raise self.retry()", "raise Retry()"),
        ("raise self.retry(countdown=3)", "raise Retry(after=3)"),
        ("self.retry(countdown=3)", "raise Retry(after=3)"),
        ("return self.retry()", "raise Retry()"),
        ("self.update_state(state='P', meta={'current': 1, 'total': 2})", "self.progress(1, 2)"),
        (
            "try:\n        pass\n    except OSError as exc:\n"
            "        raise self.retry(exc=exc, countdown=2 ** self.request.retries)",
            "try:\n        pass\n    except OSError as exc:\n        raise Retry(after=2 ** self.retried) from exc",
        ),
        ("raise self.retry(max_retries=9)", None),
        ("raise self.retry(args=(1,))", None),
        ("x = self.retry()", None),
        ("return self.request.hostname", None),
        ("return helper(self)", None),
        ("self.app.send_task('x')", None),
        ("self = 3", None),
        ("return lambda self: self.request.id", None),
        ("return f'{self.request.id}'", "return f'{self.id}'"),
    ]
    functions = [
        f"@shared_task(bind=True)\ndef f{number}(self, a):\n    {body}" for number, (body, _) in enumerate(cases)
    ]
    results = translated(functions, tmp_path, head="from celery import shared_task\n\n\n")
    for (body, expected), before, new in zip(cases, functions, results, strict=True):
        with subtests.test(body=body):
            if expected is None:
                assert unmarked(new) == before
            else:
                assert new.endswith(f"(self: TaskContext, a):\n    {expected}")
            assert ("remains a Celery task: " in new) == (expected is None)


def test_a_function_that_cannot_be_a_task_stays_with_celery(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for function in [
        "def f(a, /): ...",
        "def f():\n    yield 1",
        "class A:\n    @shared_task\n    def f(self): ...",
    ]:
        with subtests.test(function=function):
            decorator = "" if function.startswith("class") else "@shared_task\n"
            before = f"from celery import shared_task\n\n\n{decorator}{function}\n"

            change = migrated(before, tmp_path)

            assert [line for line in change.new.splitlines() if "# TODO taskq: " not in line] == before.splitlines()
            assert change.marks


def test_a_class_of_an_app_is_marked(tmp_path: Path) -> None:
    """This also holds for an app that another file creates."""
    before = (
        "from shop.celery import app\n\n\nclass Import(app.Task): ...\n\n\ndo_import = app.register_task(Import())\n"
    )

    change = migrated(before, tmp_path)

    assert [line for line in change.new.splitlines() if "# TODO taskq: " not in line] == before.splitlines()
    assert [mark for _line, mark in change.marks if mark.startswith("a task is a function")]


def test_calls_of_a_task_that_stays_with_celery_are_not_changed(tmp_path: Path) -> None:
    """This includes calls in another file. The periodic entry of the task is left out."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "settings.py").write_text(
        "CELERY_BEAT_SCHEDULE = {'a': {'task': 'shop.tasks.f', 'schedule': 60}, 'b': {'task': 'x.g', 'schedule': 60}}\n"
    )
    (tmp_path / "shop" / "tasks.py").write_text(
        "from celery import shared_task\n\n\n@shared_task(base=Mine)\ndef f(a): ...\n"
    )

    calls = "from shop.tasks import f\n\nf.apply_async((1,), countdown=3)\n"
    change = migrated(calls, tmp_path, name="shop/views.py", to="django")

    assert change.new == calls
    found = migrate_celery([tmp_path], Target.parse("django"))
    (settings,) = (each.new for each in found.changes if each.path.name == "settings.py")
    assert "beat entry 'a' was left out: the task of the entry was not rewritten" in settings
    assert '"b": {"task": "x.g", "cron": "@every 60s"}' in settings


def test_a_local_name_of_a_function_is_no_task(tmp_path: Path) -> None:
    change = migrated(HEAD + "def h(f, pool):\n    f.apply_async(print, (1,))\n", tmp_path)

    assert change.new.endswith("def h(f, pool):\n    f.apply_async(print, (1,))\n")


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_keeps_its_line_ends_encoding_and_permissions(tmp_path: Path) -> None:
    path = tmp_path / "tasks.py"
    path.write_bytes(
        HEAD.replace("\n", "\r\n")
        .replace("def f", "# \xe4\r\ndef f")
        .encode("latin-1")
        .join([b"# -*- coding: latin-1 -*-\r\n", b""])
    )
    path.chmod(0o750)

    assert main(["migrate", "celery", str(tmp_path), "--to", "shop.queue:taskq", "--write"]) == 0

    written = path.read_bytes()
    assert b"# \xe4\r\n" in written
    assert written.count(b"\n") == written.count(b"\r\n")
    assert b"@taskq.task" in written
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert os.listdir(tmp_path) == ["tasks.py"]


def test_a_file_with_invalid_python_is_reported_and_the_others_are_migrated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.py").write_text("print 'celery'\n")
    (tmp_path / "binary.py").write_bytes(b"\x00\xffcelery")
    (tmp_path / "tasks.py").write_text(HEAD)

    assert main(["migrate", "celery", str(tmp_path), "--to", "shop.queue:taskq", "--write"]) == 1

    assert "old.py: the file cannot be read" in capsys.readouterr().err
    assert (tmp_path / "old.py").read_text() == "print 'celery'\n"
    assert "@taskq.task" in (tmp_path / "tasks.py").read_text()


def test_environments_hidden_folders_and_links_are_skipped(tmp_path: Path) -> None:
    for name in ("env/lib/x.py", ".hidden/x.py", "node_modules/x.py", "shop/tasks.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(HEAD)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "shop" / "link.py").symlink_to(tmp_path / ".hidden" / "x.py")

    found = migrate_celery([tmp_path], Target.parse("django"))

    assert [each.path.relative_to(tmp_path).as_posix() for each in found.changes] == ["shop/tasks.py"]


def test_names_in_use_are_replaced_by_others(tmp_path: Path) -> None:
    """The file already defines a `task` and a `Retry`."""
    change = migrated(
        """
        from celery import shared_task

        task = Retry = None


        @shared_task(bind=True)
        def f(self):
            raise self.retry()
        """,
        tmp_path,
        to="django",
    )

    assert "from taskq_django import task as taskq_task" in change.new
    assert "@taskq_task(" in change.new
    assert "raise taskq_Retry()" in change.new
    compile(change.new, "x", "exec")


def test_json_lists_the_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tasks.py").write_text(HEAD + "f.apply_async((1,), priority=3)\n")

    assert main(["migrate", "celery", str(tmp_path), "--to", "shop.queue:taskq", "--json"]) == 0

    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert file["changed"]
    assert not file["written"]
    assert file["diff"].startswith("--- ")
    hint = "priority: taskq's option priority takes 9 first and 0, its default, last; with Redis, Celery takes 0 first"
    assert [each["text"] for each in file["marks"]] == [
        f"f remains a Celery task: a call in tasks cannot be rewritten: {hint}",
        hint,
    ]


def test_an_unknown_target_is_refused(subtests: pytest.Subtests) -> None:
    for target in ["", "shop", "shop.queue", "shop.queue:", "1:x", "shop.queue:a.b"]:
        with subtests.test(target=target), pytest.raises(ConfigurationError, match="MODULE:NAME"):
            Target.parse(target)


def test_a_project_without_django_needs_a_target(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(HEAD)

    with pytest.raises(ConfigurationError, match="--to"):
        migrate_celery([tmp_path])


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file or folder"):
        migrate_celery([tmp_path / "gone"])


def test_an_existing_queue_module_is_not_overwritten(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "core" / "before", tmp_path / "project")
    queue = tmp_path / "project" / "pipeline" / "queue.py"
    queue.write_text("mine = 1\n")

    found = migrate_celery([tmp_path / "project" / "pipeline"], Target.parse("pipeline.queue:taskq"))

    (change,) = (each for each in found.changes if each.path == queue and each.notes)
    assert not change.is_change
    assert "TaskQ(" in change.notes[0][1]


SHAPES = {
    "tasks": "\n\n@shared_task(bind=True)\ndef task_{0}(self, a, b, c, d):\n    raise self.retry(countdown=a)\n",
    "workflows": "chain(f.s({0}), group([g.s(), f.s(2)])).apply_async()\n",
    "calls by name": "current_app.send_task('shop.tasks.f', [{0}])\n",
    "a long chain of calls": "\\\n.filter(a={0})",
    "a long workflow": "\\\n| g.s()",
    "a list of signatures": "f.s({0}),\n",
}


def count_of_calls(text: str, folder: Path) -> int:
    """Return how many functions of Python are called to migrate a file: the work, without the noise of a clock."""
    profile = cProfile.Profile(builtins=False)
    profile.runcall(migrated, text, folder)
    return sum(each.callcount for each in profile.getstats())


@pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="Python 3.11 may never leave a generator that a profile watches after many runs without one",
)
def test_the_work_grows_with_the_size_of_the_file(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Twice as many lines of one kind cause twice the work."""
    head = HEAD.replace("import shared_task", "import chain, current_app, group, shared_task")
    around = {
        "a long chain of calls": ("x = objects", "\n"),
        "a long workflow": ("(f.s(1)", ").apply_async()\n"),
        "a list of signatures": ("steps = [\n", "]\nchain(*steps)()\n"),
    }
    for shape in SHAPES:
        before, after = around.get(shape, ("", ""))
        one, two, four = (
            count_of_calls(
                head + before + "".join(SHAPES[shape].format(each) for each in range(lines)) + after, tmp_path
            )
            for lines in (8, 16, 32)
        )
        with subtests.test(shape=shape):
            assert four - two < 2.1 * (two - one) + 1000


# --- schedules --------------------------------------------------------------------------------------------------------


def test_a_schedule_of_celery_becomes_a_spec(subtests: pytest.Subtests) -> None:
    for schedule, spec in [
        ("30", "@every 30s"),
        ("1.5", "@every 1.5s"),
        ("60 * 60", "@every 3600s"),
        ("timedelta(minutes=5)", "@every 300s"),
        ("timedelta(1)", "@every 86400s"),
        ("schedule(run_every=timedelta(hours=1))", "@every 3600s"),
        ("crontab()", "* * * * *"),
        ("crontab(minute=0, hour='*/3')", "0 */3 * * *"),
        ("crontab(0, 0, day_of_month='1,15')", "0 0 1,15 * *"),
        ("crontab(day_of_week='Sunday')", "* * * * sun"),
        ("crontab(day_of_week='mon-fri')", "* * * * mon-fri"),
        ("crontab(day_of_week='7')", "* * * * 0"),
        ("crontab(minute=[0, 30])", "0,30 * * * *"),
        ("crontab(month_of_year='jan,jul')", "* * * jan,jul *"),
        ("crontab(hour='8-18/2')", "* 8-18/2 * * *"),
    ]:
        with subtests.test(schedule=schedule, spec=spec):
            assert spec_of(schedule) == spec


def test_a_schedule_without_an_equivalent_is_refused(subtests: pytest.Subtests) -> None:
    for schedule in [
        "0.2",
        "solar('sunset', 1, 2)",
        "crontab(day_of_month=13, day_of_week='fri')",
        "crontab(hour='22-3')",
        "crontab(hour=hours)",
        "crontab(nowfun=f)",
        "crontab(day_of_week='someday')",
        "timedelta(minutes=n)",
        "schedules['x']",
    ]:
        with subtests.test(schedule=schedule), pytest.raises(CannotTranslateError):
            spec_of(schedule)


# --- settings of Django and what the whole project shows --------------------------------------------------------------


def django_project(tmp_path: Path, **files_: str) -> dict[str, str]:
    """Return what becomes of the files of a Django project, by their names."""
    (tmp_path / "shop").mkdir()
    for name in ("__init__", *files_):
        (tmp_path / "shop" / f"{name}.py").write_text(textwrap.dedent(files_.get(name, "")))
    found = migrate_celery([tmp_path], Target.parse("django"))
    assert not found.failed
    return {each.path.stem: each.new for each in found.changes}


def test_a_django_project_gets_its_settings_in_one_place(tmp_path: Path) -> None:
    """These are settings of the app, periodic tasks of its signal, queues, time limits, and Celery's time zone."""
    new = django_project(
        tmp_path,
        settings="""
            INSTALLED_APPS = ["shop", "django_celery_beat"]
            CELERY_TASK_TIME_LIMIT = 5 * 60
            STATIC_URL = "/"
            """,
        settings_test="from shop.settings import *\n\nCELERY_TASK_ALWAYS_EAGER = True\n",
        celery="""
            from celery import Celery
            from celery.schedules import crontab

            app = Celery("shop")
            app.conf.task_queues = [Queue("mail"), Queue("slow", routing_key="slow")]


            @app.on_after_configure.connect
            def set_up(sender, **kwargs):
                from shop.tasks import tidy

                sender.add_periodic_task(crontab(hour=3, minute=0), tidy.s(2, dry=True), name="nightly")
            """,
        tasks="""
            from celery import shared_task


            @shared_task
            def tidy(days, dry=False): ...


            @shared_task(queue="own")
            async def ask(): ...
            """,
    )

    assert new["settings"] == textwrap.dedent(
        """
        # TODO taskq: django_celery_beat: enter its periodic tasks in taskq's admin, then remove it
        INSTALLED_APPS = ["shop", "django_celery_beat", "taskq_django"]
        CELERY_TASK_TIME_LIMIT = 5 * 60

        TASKQ = {
            "TIME_ZONE": "UTC",
            "QUEUES": ["default", "own", "mail", "slow"],
            "DEFAULTS": {"timeout": 300},
            "SCHEDULE": {
                "nightly": {"task": "shop.tasks.tidy", "cron": "0 3 * * *", "kwargs": {"days": 2, "dry": True}},
            },
        }
        STATIC_URL = "/"
        """
    )
    assert new["settings_test"].endswith('\n\nTASKQ = {\n    **TASKQ,\n    "EAGER": True,\n}\n')
    assert "set_up" not in new["celery"]
    assert '@task(executor="process", max_retry=0)\ndef tidy' in new["tasks"]
    assert '@task(queue="own", max_retry=0)\nasync def ask' in new["tasks"]


def test_a_dynamic_periodic_call_is_marked(tmp_path: Path) -> None:
    text = """
        from shop.celery import app
        from shop.tasks import f


        @app.on_after_finalize.connect
        def set_up(sender, **kwargs):
            for number in range(3):
                sender.add_periodic_task(10, f.s(number))
        """

    new = django_project(tmp_path, jobs=text, tasks=HEAD, settings="INSTALLED_APPS = ['shop']\n")["jobs"]

    assert "# TODO taskq: add_periodic_task is called in a condition or loop" in new
    assert "sender.add_periodic_task(10, f.s(number))" in new


def test_dates_of_calls_annotate_parameters_and_read_results_are_kept(tmp_path: Path) -> None:
    new = django_project(
        tmp_path,
        settings="INSTALLED_APPS = ['shop']\n",
        tasks="""
            from celery import shared_task


            @shared_task
            def send(when, to=None, *, price=None): ...


            @shared_task
            def guess(day):
                return day.isoformat()


            @shared_task
            def both(key): ...
            """,
        views="""
            import uuid
            from datetime import datetime
            from decimal import Decimal

            from django.utils import timezone
            from shop.tasks import both, send

            now = timezone.now()
            key = uuid.uuid4()
            both.delay(key)
            both.delay(datetime(2033, 5, 18))
            send.apply_async((now,), {"to": key, "price": Decimal("1.2") * 2}).get()
            """,
    )

    assert "@task(max_retry=0, retention=86400)\n" in new["tasks"]
    assert "def send(when: datetime, to: UUID | None = None, *, price: Decimal | None = None): ..." in new["tasks"]
    assert "from datetime import datetime\n" in new["tasks"]
    assert "# TODO taskq: annotate day: without a type, a date or a decimal arrives as text" in new["tasks"]
    assert "# TODO taskq: annotate key: " in new["tasks"]


def test_reading_a_result_by_id_enables_retention_for_all_tasks(tmp_path: Path) -> None:
    views = "from celery.result import AsyncResult\n\n\ndef state(key):\n    return AsyncResult(key).state\n"

    new = django_project(tmp_path, settings="INSTALLED_APPS = ['shop']\n", tasks=HEAD, views=views)

    assert '"DEFAULTS": {"retention": 86400},' in new["settings"]
    assert "# TODO taskq: AsyncResult is still imported from the package celery: " in new["views"]


def test_a_module_of_settings_becomes_arguments_of_the_queue(tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text("broker_url = 'redis://cache/1'\ntimezone = 'Europe/Oslo'\n")
    (tmp_path / "app.py").write_text(
        "from celery import Celery\n\napp = Celery('x')\napp.config_from_object('celeryconfig')\n"
    )

    (change,) = (
        each for each in migrate_celery([tmp_path], Target.parse("jobs:taskq")).changes if each.path.name == "jobs.py"
    )

    assert "    url='redis://cache/1',\n    time_zone='Europe/Oslo',\n" in change.new


PLAIN = "@task(max_retry=0)"
LATE = "@task(no_retry_on=Exception)"
EVENTS = "taskq has no events; the dashboard"
BACKEND = "results are stored in Redis, by tasks with retention"
# Settings, then the decorator of a task without options, and what is written or marked.
SETTINGS_WITHOUT_SUCCESSOR: list[tuple[str, str, str]] = [
    ("CELERY_TASK_ACKS_LATE = True", LATE, ""),
    ("CELERY_ACKS_LATE = True", LATE, ""),
    ("CELERY_TASK_ACKS_LATE = False", PLAIN, ""),
    ("CELERY_TASK_ACKS_LATE = LATE", PLAIN, "TODO taskq: task_acks_late: no literal; add no_retry_on"),
    ("CELERY_TASK_ACKS_LATE = CELERY_TASK_REJECT_ON_WORKER_LOST = True", LATE, ""),
    ("CELERY_TASK_REJECT_ON_WORKER_LOST = True", PLAIN, ""),
    ("CELERY_TASK_IGNORE_RESULT = True", "@task(retention=0, max_retry=0)", ""),
    ("CELERY_TASK_IGNORE_RESULT = False", PLAIN, ""),
    ("CELERY_TASK_DEFAULT_RATE_LIMIT = '5/m'", '@task(rate_limit="5/m", max_retry=0)', ""),
    ("CELERY_TASK_DEFAULT_RATE_LIMIT = RATE", PLAIN, "TODO taskq: task_default_rate_limit: no literal"),
    ("CELERY_ACCEPT_CONTENT = ['json', 'application/json']", PLAIN, ""),
    ("CELERY_ACCEPT_CONTENT = ['msgpack']", PLAIN, "TODO taskq: accept_content: taskq payloads"),
    ("CELERY_TASK_SERIALIZER = 'json'", PLAIN, ""),
    ("CELERY_TASK_SERIALIZER = 'pickle'", PLAIN, "TODO taskq: task_serializer: taskq payloads"),
    ("CELERY_RESULT_SERIALIZER = 'yaml'", PLAIN, "TODO taskq: result_serializer: taskq payloads"),
    ("CELERY_ENABLE_UTC = True", PLAIN, ""),
    ("CELERY_ENABLE_UTC = False", PLAIN, "TODO taskq: enable_utc: set TIME_ZONE"),
    ("CELERY_TASK_ACKS_ON_FAILURE_OR_TIMEOUT = True", PLAIN, ""),
    ("CELERY_TASK_ACKS_ON_FAILURE_OR_TIMEOUT = False", PLAIN, "TODO taskq: task_acks_on_failure_or"),
    ("CELERY_TASK_TRACK_STARTED = True", PLAIN, ""),
    ("CELERY_TASK_STORE_ERRORS_EVEN_IF_IGNORED = True", PLAIN, ""),
    ("CELERY_TASK_SEND_SENT_EVENT = False", PLAIN, ""),
    ("CELERY_TASK_SEND_SENT_EVENT = True", PLAIN, f"TODO taskq: task_send_sent_event: {EVENTS}"),
    ("CELERY_WORKER_SEND_TASK_EVENTS = True", PLAIN, f"TODO taskq: worker_send_task_events: {EVENTS}"),
    ("CELERY_SEND_EVENTS = False", PLAIN, ""),
    ("CELERY_WORKER_PREFETCH_MULTIPLIER = PREFETCH", PLAIN, ""),
    ("CELERYD_PREFETCH_MULTIPLIER = 1", PLAIN, ""),
    ("CELERY_BROKER_CONNECTION_RETRY = True", PLAIN, ""),
    ("CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = False", PLAIN, "TODO taskq: broker_connection_retry_on"),
    ("CELERY_BROKER_CONNECTION_MAX_RETRIES = 3", PLAIN, "TODO taskq: broker_connection_max_retries: a wo"),
    ("CELERY_TASK_CREATE_MISSING_QUEUES = True", PLAIN, ""),
    ("CELERY_TASK_CREATE_MISSING_QUEUES = False", PLAIN, "TODO taskq: task_create_missing_queues: "),
    ("CELERY_WORKER_HIJACK_ROOT_LOGGER = False", PLAIN, ""),
    ("CELERYD_HIJACK_ROOT_LOGGER = True", PLAIN, "TODO taskq: worker_hijack_root_logger: a worker"),
    ("CELERY_WORKER_POOL = 'threads'", PLAIN, ""),
    ("CELERY_WORKER_POOL = 'prefork'", PLAIN, "TODO taskq: worker_pool: plain functions run in threads"),
    ("CELERY_BEAT_SCHEDULER = 'celery.beat:PersistentScheduler'", PLAIN, ""),
    ("CELERYBEAT_SCHEDULER = 'mine:Own'", PLAIN, "TODO taskq: beat_scheduler: enter the periodic tasks"),
    ("CELERY_RESULT_BACKEND = 'django-db'", PLAIN, f"TODO taskq: result_backend: {BACKEND}"),
    ("CELERY_RESULT_BACKEND = 'redis://cache'", PLAIN, ""),
    ("CELERY_IMPORTS = ('shop.jobs', 'shop.mail')", PLAIN, "\"INCLUDE\": ['shop.jobs', 'shop.mail'],"),
    ("CELERY_INCLUDE = MODULES", PLAIN, '"INCLUDE": [*MODULES],'),
    ("CELERY_QUEUES = ('a',)", PLAIN, '"QUEUES": ["default", "a"],'),
    ("CELERY_BEAT_SYNC_EVERY = 5", PLAIN, "TODO taskq: beat_sync_every has no equivalent"),
]


def test_a_setting_is_called_needless_only_if_nothing_is_lost(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Nothing is lost if the new code keeps the effect, or if the effect is what taskq does with every task."""
    for number, (setting, decorator, written) in enumerate(SETTINGS_WITHOUT_SUCCESSOR):
        with subtests.test(setting=setting):
            folder = tmp_path / str(number)
            folder.mkdir()

            new = django_project(
                folder,
                settings=f"INSTALLED_APPS = ['shop']\n{setting}\n",
                tasks="from celery import shared_task\n\n\n@shared_task\ndef f(): ...\n",
            )

            assert f"{decorator}\ndef f" in new["tasks"]
            assert written in new["settings"]
            assert ("TODO" in new["settings"] or "TASKQ" in new["settings"]) == bool(written)


def test_the_effect_of_every_needless_setting_is_known() -> None:
    covered = {current_name(setting.partition(" ")[0]) for setting, _, _ in SETTINGS_WITHOUT_SUCCESSOR}

    assert not _NEEDLESS.keys() - covered - {"result_accept_content"}


def test_a_task_with_a_global_acks_late_is_called_by_name_with_its_options(tmp_path: Path) -> None:
    new = migrated(
        "from celery import Celery\n\napp = Celery('shop')\napp.conf.task_acks_late = True\n\n\n"
        "@app.task\ndef f(): ...\n\n\n@app.task(acks_late=False)\ndef early(): ...\n",
        tmp_path,
    ).new

    assert "@taskq.task(no_retry_on=Exception)\ndef f" in new
    assert "@taskq.task(max_retry=0)\ndef early" in new


def test_modules_with_tasks_are_found_as_before(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for number, (call, written) in enumerate(
        [
            ("app.autodiscover_tasks()", ""),
            ("app.autodiscover_tasks(lambda: settings.INSTALLED_APPS)", ""),
            ("app.autodiscover_tasks(related_name='jobs')", '"AUTODISCOVER": ["tasks", "jobs"],'),
            ("app.autodiscover_tasks(['shop', 'gone'], 'jobs')", '"INCLUDE": ["shop.jobs"],'),
            ("app.autodiscover_tasks(PACKAGES)", "TODO taskq: autodiscover_tasks: list the modules"),
        ]
    ):
        with subtests.test(call=call):
            (tmp_path / str(number)).mkdir()
            new = django_project(
                tmp_path / str(number),
                settings="INSTALLED_APPS = ['shop']\n",
                celery=f"from celery import Celery\n\napp = Celery('shop')\n{call}\n",
                jobs="from celery import shared_task\n\n\n@shared_task\ndef f(): ...\n",
            )

            texts = new["settings"] + new["celery"].replace("TODO taskq: Celery is", "")
            assert written in texts
            assert ("TODO taskq" in texts or "TASKQ" in texts) == bool(written)


def test_code_that_has_no_effect_on_taskq_is_marked(tmp_path: Path) -> None:
    """Tests that run tasks at once would else wait for a worker, and a revoked task would run."""
    new = django_project(
        tmp_path,
        settings="INSTALLED_APPS = ['shop']\n",
        tasks=HEAD,
        test_shop="""
            from celery import current_app
            from django.test import TestCase, override_settings
            from shop.celery import app
            from shop.tasks import f


            @override_settings(CELERY_TASK_ALWAYS_EAGER=True)
            class EagerTest(TestCase):
                def test_it(self):
                    with self.settings(CELERY_TASK_EAGER_PROPAGATES=True):
                        f.delay()


            def test_that(settings):
                settings.CELERY_TASK_ALWAYS_EAGER = True
                app.conf.task_always_eager = True
                app.conf.update(task_always_eager=True)
                app.control.revoke("id", terminate=True)
                current_app.control.purge()
            """,
    )["test_shop"]

    marks = [line.strip()[14:].partition(" ")[0] for line in new.splitlines() if "# TODO taskq" in line]
    assert marks == [
        "current_app",
        "CELERY_TASK_ALWAYS_EAGER",
        "CELERY_TASK_EAGER_PROPAGATES",
        "CELERY_TASK_ALWAYS_EAGER",
        "task_always_eager",
        "conf.update()",
        ".control:",
        ".control:",
    ]
    assert "taskq.get(task_id).cancel() replaces revoke()" in new


def test_a_second_run_knows_the_settings_and_names_those_to_add(tmp_path: Path) -> None:
    """`send` was left in the first run. It gets its queue and options, and the report has its periodic entry."""
    new = django_project(
        tmp_path,
        settings="""
            INSTALLED_APPS = ["shop"]
            CELERY_TASK_ACKS_LATE = True
            CELERY_TASK_ROUTES = {"shop.tasks.send": {"queue": "mail"}}
            CELERY_BEAT_SCHEDULE = {"s": {"task": "shop.tasks.send", "schedule": 60}}
            """,
        tasks="from celery import shared_task\n\n\n@shared_task(base=Mine)\ndef send(): ...\n",
    )
    for name, text in new.items():
        (tmp_path / "shop" / f"{name}.py").write_text(text.replace("(base=Mine)", ""))

    found = {each.path.stem: each for each in migrate_celery([tmp_path], Target.parse("django")).changes}

    assert '@task(no_retry_on=Exception, queue="mail")\ndef send' in found["tasks"].new
    assert not found["settings"].is_change
    assert any(
        "TASKQ exists already" in note and '"s": {"task": "shop.tasks.send", "cron": "@every 60s"}' in note
        for _, note in found["settings"].notes
    )


def test_settings_that_are_not_found_are_marked(tmp_path: Path) -> None:
    new = migrated("from celery import Celery\n\napp = Celery('x')\napp.config_from_object(Config)\n", tmp_path).new

    assert "# TODO taskq: config_from_object: these settings were not found" in new


def test_without_libcst_the_command_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in sys.modules if each.startswith("taskq_migrate")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "libcst", None)

    assert main(["migrate", "celery", ".", "--to", "django"]) != 0

    assert "pip install 'taskq-asynq[migrate]'" in capsys.readouterr().err
