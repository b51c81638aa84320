"""The harness of the benchmarks itself: what it counts, how it reports, what it draws. No peer is needed for this."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from benchmarks import plots, publishing
from benchmarks.noise import CpuTimes, NoiseMeter, spent_s
from benchmarks.peers.cases import Runner
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.environments import Environment
from benchmarks.peers.ledger import Ledger
from benchmarks.peers.reference import reference_rows
from benchmarks.placement import placements
from benchmarks.results import Results
from benchmarks.session import Case, CaseError, Figure, Found, Session
from tests.redis_server import RedisServer

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "results.json"
SCHEMA = json.loads((ROOT / "benchmarks" / "results.schema.json").read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"
STAT = """\
cpu  1000 20 300 90000 40 5 6 70 0 0
cpu0 500 10 150 45000 20 3 3 35 0 0
intr 12345
"""


# --- ledger -----------------------------------------------------------------------------------------------------------


def test_a_ledger_notices_a_lost_and_a_doubled_task(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 20)
    for number in (0, 1, 2, 2, 4, 5):
        ledger.ran(number)

    account = ledger.account(6)
    seen = ledger.seen(6)
    ledger.close()

    assert (account.once, account.lost, account.repeated, account.runs) == (4, 1, 1, 6)
    assert seen == 5
    assert not account.is_exact


def test_a_ledger_in_which_each_ran_once_is_exact(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 3)
    for number in range(3):
        ledger.began(number)
        ledger.ended(number)

    assert ledger.account(3).is_exact
    ledger.close()


def test_a_ledger_notices_a_task_that_nobody_asked_for(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 10)
    for number in (0, 1, 7):
        ledger.ran(number)

    account = ledger.account(2)
    ledger.close()

    assert (account.once, account.lost, account.repeated) == (2, 0, 1)


def test_a_ledger_holds_what_other_processes_wrote_even_when_they_are_killed(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 5)
    code = (
        "import os, signal, sys; from benchmarks.peers.ledger import Ledger; ledger = Ledger(sys.argv[1]); "
        "[ledger.ran(number) for number in range(5)]; os.kill(os.getpid(), signal.SIGKILL)"
    )

    subprocess.run([sys.executable, "-c", code, ledger.path], cwd=ROOT, check=False)

    assert ledger.account(5).is_exact
    ledger.close()


def test_a_rate_begins_when_the_last_process_does(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", 6)
    runs = [(1, 0), (1, 10), (1, 20), (2, 20), (1, 30), (2, 30)]  # process, and time in units of 100 ms
    for number, (process, at) in enumerate(runs):
        ledger.processes[number] = process
        ledger.starts[number] = ledger.ends[number] = (at + 1) * 100_000_000

    assert ledger.rate(6) == pytest.approx(4 / 1.0)
    ledger.close()


# --- noise ------------------------------------------------------------------------------------------------------------


def test_cpu_times_are_read_from_proc() -> None:
    times = CpuTimes.parse(STAT)
    tick_s = 1 / os.sysconf("SC_CLK_TCK")

    assert times.busy_s == pytest.approx(1331 * tick_s)
    assert times.steal_s == pytest.approx(70 * tick_s)


def test_a_stat_without_the_line_of_all_cpus_is_refused() -> None:
    with pytest.raises(ValueError, match="no line `cpu`"):
        CpuTimes.parse("cpu0 1 2 3 4 5 6 7 8\n")


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_what_a_meter_reads_is_not_ours_and_what_it_leaves_out_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = iter([CpuTimes(busy_s=100.0, steal_s=5.0), CpuTimes(busy_s=112.0, steal_s=5.5)])
    ours = iter([40.0, 43.0])
    monkeypatch.setattr(NoiseMeter, "_times", staticmethod(lambda: next(stats)))
    monkeypatch.setattr(NoiseMeter, "_ours_s", lambda meter: next(ours))

    noise = NoiseMeter(1000.0).read(1010.0)

    assert noise is not None
    assert (noise.foreign_percent, noise.steal_percent) == (90.0, 5.0)  # of one CPU: 9 s and 0.5 s of 10 s
    assert spent_s(os.getpid()) > 0
    assert spent_s("no such process") == 0


# --- placement --------------------------------------------------------------------------------------------------------


def test_redis_has_a_cpu_of_its_own_where_there_are_enough() -> None:
    two, four = placements([0, 1]), placements([2, 3, 4, 5])

    assert (two["apart"].redis, two["apart"].workers) == ((1,), (0,))
    assert two["spread"].redis == ()
    assert (four["spread"].redis, four["spread"].workers) == ((5,), (2, 3, 4))
    assert four["together"].redis == four["together"].workers == (2,)
    assert {place.words for place in placements([0]).values()} == {"everything on one CPU"}


# --- results ----------------------------------------------------------------------------------------------------------


def problems(path: Path) -> list[str]:
    validator = Draft202012Validator(SCHEMA)
    return [error.message for error in validator.iter_errors(json.loads(path.read_text(encoding="utf-8")))]


def measured(cases: list[Case], runs: int = 3) -> Results:
    session = Session(transport="unix", durability="none", runs=runs)
    rounds: list[Results] = []
    session.measure(
        cases,
        lambda rows: rounds.append(
            session.results(
                command="python -m benchmarks",
                started_s=0.0,
                rows=rows,
                versions={"python": "3"},
                conditions={"tasks": 4},
            )
        ),
    )
    assert [results.conditions["runs"] for results in rounds] == list(range(1, runs + 1))
    return rounds[-1]


@pytest.mark.redis
def test_results_have_the_median_of_runs_that_took_turns_and_name_what_failed(tmp_path: Path) -> None:
    turns = []
    values = iter([3.0, 9.0, 6.0])

    def fine(server: RedisServer, place: object) -> Found:
        turns.append("fine")
        assert server.client.dbsize() == 0
        server.client.set("left", "behind")
        return Found(figures={"rate": next(values), "limit": 12.0}, tasks=4)

    def broken(server: RedisServer, place: object) -> Found:
        turns.append("broken")
        if turns.count("broken") == 2:
            raise CaseError("3 of 4 tasks did not run")
        return Found(figures={"rate": 1.0})

    rate = Figure(name="rate", measure="drain", title="drain", unit="tasks/s", higher_is_better=True, limit="raw")
    raw = Figure(name="limit", measure="raw", title="raw", unit="tasks/s", higher_is_better=True)
    results = measured(
        [
            Case(system="one", setting="", title="drain", placement="apart", run=fine, figures=(rate, raw)),
            Case(system="two", setting="", title="drain", placement="apart", run=broken, figures=(rate,)),
        ]
    )
    results.write(tmp_path / "deep" / "results.json")

    assert turns == ["fine", "broken", "fine", "broken", "fine"]  # what fails is left out from then on
    drain, _ = results.rows
    assert (drain.runs, drain.median, drain.lowest, drain.highest, drain.limit) == (
        [3.0, 9.0, 6.0],
        6.0,
        3.0,
        9.0,
        12.0,
    )
    assert [(entry.system, entry.reason) for entry in results.absent] == [("two", "3 of 4 tasks did not run")]
    assert problems(tmp_path / "deep" / "results.json") == []
    assert Results.read(tmp_path / "deep" / "results.json") == results


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"schema": 2}')

    with pytest.raises(ValueError, match="has schema 2, expected 1"):
        Results.read(path)


@pytest.mark.redis
def test_a_worker_of_ours_is_measured_and_its_ledger_is_exact() -> None:
    peer = next(peer for peer in PEERS if peer.name == "taskq")
    runner = Runner(
        peer=peer,
        setting=peer.settings[0],
        environment=Environment(program=sys.executable, variables={}, version="this"),
        single_s=0.05,
    )

    with RedisServer(tcp=True) as server:
        found = runner.drain(server, placements()["spread"], count=50)

    assert found.account is not None
    assert found.account.is_exact
    assert found.tasks == found.account.expected > 50  # those enqueued one after another ran as well
    assert {"rate", "sync", "async", "bulk"} <= found.figures.keys()
    assert min(found.figures.values()) >= 0


def test_every_peer_has_an_adapter_that_names_a_page_and_one_setting_that_enqueues() -> None:
    for peer in PEERS:
        name = "bullmq_npm.mjs" if peer.node else f"{peer.name}.py"
        adapter = (ROOT / "benchmarks" / "peers" / name).read_text(encoding="utf-8")
        assert "Setting after " in adapter, peer.name
        assert sum(setting.enqueues for setting in peer.settings) == 1, peer.name
        assert {"50", "two"} <= {setting.group for setting in peer.settings}, peer.name
        names = [setting.name for setting in peer.settings]
        assert len(names) == len(set(names)), peer.name


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_the_golden_results_fit_the_schema() -> None:
    assert problems(GOLDEN) == []


def test_a_picture_has_a_bar_for_each_row_as_long_as_its_median() -> None:
    results = Results.read(GOLDEN)
    picture = next(picture for picture in plots.PICTURES_OF_PEERS if picture.name == "drain-50")

    root = ElementTree.fromstring(plots.draw(results, picture))

    rows = plots.rows_of(results, picture)
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("class") != "paper"]
    assert [bar.get("class") for bar in bars] == ["ours", "earlier", "peer"]
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert [width / widths[0] for width in widths] == pytest.approx(
        [row.median / rows[0].median for row in rows], abs=0.01
    )
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert any("asynq (Go)" in text and plots.EARLIER in text for text in texts)
    assert any("a & <b>" in text for text in texts)  # what is drawn is text, never markup
    assert len([path for path in root.iter(f"{SVG}path") if path.get("class") == "whisker"]) == 2


def test_an_axis_that_grows_by_factors_holds_all_figures() -> None:
    results = Results.read(GOLDEN)
    picture = next(picture for picture in plots.PICTURES_OF_PEERS if picture.name == "latency-p50")

    root = ElementTree.fromstring(plots.draw(results, picture))

    widths = [float(bar.get("width", "0")) for bar in root.iter(f"{SVG}rect") if bar.get("class") != "paper"]
    view = [float(number) for number in root.get("viewBox", "").split()]
    assert widths == sorted(widths)
    assert all(1 <= width < view[2] for width in widths)


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Before.\n\n<!-- benchmarks of peers: begin -->\nold\n<!-- benchmarks of peers: end -->\n\nAfter.\n"
    )
    results = Results.read(GOLDEN)

    (tmp_path / "of-an-earlier-run.svg").write_text("<svg/>")

    drawn = publishing.publish(results, pictures=tmp_path, page=page)
    first = page.read_text()
    publishing.publish(results, pictures=tmp_path, page=page)

    assert drawn == ["drain-50", "latency-p50"]
    assert sorted(path.stem for path in tmp_path.glob("*.svg")) == drawn
    assert page.read_text() == first
    assert first.startswith("Before.\n")
    assert first.endswith("\n\nAfter.\n")
    assert "old" not in first
    assert f"| asynq (Go) | {plots.EARLIER} | 12,800 | {plots.EARLIER} |" in first
    assert "Not measured: rq, everything: pip failed." in first


def test_page_and_pictures_say_when_the_machine_was_not_quiet() -> None:
    quiet = Results.read(GOLDEN)
    noisy = replace(quiet, noise={**quiet.noise, "foreign_percent_median": 60.0})
    picture = next(picture for picture in plots.PICTURES_OF_PEERS if picture.name == "drain-50")

    assert "not quiet" in plots.draw(noisy, picture)
    assert "not quiet" in publishing.conditions(noisy)
    assert "not quiet" not in plots.draw(quiet, picture) + publishing.conditions(quiet)


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks")

    with pytest.raises(ValueError, match="has no lines"):
        publishing.publish(Results.read(GOLDEN), pictures=tmp_path, page=page)


def test_what_was_measured_earlier_has_no_runs_and_says_so() -> None:
    rows = reference_rows()

    assert rows
    assert all(row.source == "reference" and row.runs == [] and row.setting == plots.EARLIER for row in rows)


def test_the_pictures_and_tables_of_the_page_are_those_of_its_results(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    shutil.copy(publishing.PAGE, page)

    drawn = publishing.publish(Results.read(publishing.RESULTS), pictures=tmp_path, page=page)

    assert page.read_text(encoding="utf-8") == publishing.PAGE.read_text(encoding="utf-8")
    assert problems(publishing.RESULTS) == []
    assert sorted(path.name for path in publishing.PICTURES.glob("*.svg")) == sorted(f"{name}.svg" for name in drawn)
    for name in drawn:
        assert (tmp_path / f"{name}.svg").read_text() == (publishing.PICTURES / f"{name}.svg").read_text(), name
