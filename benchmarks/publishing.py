"""Write results into the docs pages about performance: `python -m benchmarks.publishing FILE.json`.

The script writes pictures and tables. It stores the results in `benchmarks/published`, so that the pictures can be
drawn again. The page of figures has one part for the comparison with other task queues and one for the aims. The short
page has the best figures.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks import aims
from benchmarks.plots import (
    EARLIER,
    PICTURES_OF_AIMS,
    PICTURES_OF_PEERS,
    Picture,
    described,
    detail_of,
    draw,
    is_noisy,
    of_aims,
    pictures_of_growth,
    rows_of,
)
from benchmarks.results import Results, shown

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "images" / "benchmarks"
PUBLISHED = ROOT / "benchmarks" / "published"
RESULTS = PUBLISHED / "peers.json"
AIMS = PUBLISHED / "aims.json"
GROWTH = PUBLISHED / "growth.json"
PICTURES_OF_OURS = PICTURES / "aims"
PICTURES_OF_GROWTH = PICTURES / "growth"
PAGE = ROOT / "docs" / "explanation" / "performance-figures.md"
SUMMARY = ROOT / "docs" / "explanation" / "performance.md"
SYSTEMS = ("taskq", "asynq (Go)", "celery")
"""The systems that have a column in the summary."""


def table(results: Results, picture: Picture) -> str:
    """Return the rows of a picture as a table of Markdown."""
    rows = rows_of(results, picture)
    lines = [f"| system | setting | {rows[0].unit} | lowest to highest |", "|---|---|---|---|"]
    for row in rows:
        spread = f"{shown(row.lowest, row.unit)} to {shown(row.highest, row.unit)}" if row.runs else EARLIER
        lines.append(f"| {row.system} | {detail_of(row)} | {shown(row.median, row.unit)} | {spread} |")
    return "\n".join(lines) + "\n"


def conditions(results: Results) -> str:
    """Return the conditions of the measurement: machine, versions and setting, one sentence per line."""
    machine, versions, noise = results.machine, results.versions, results.noise
    others = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in ("redis", "python"))
    durability = results.conditions["durability"]
    lines = [
        f"Taken {results.taken[:10]} with `{results.command}` in {results.duration_s / 60:.0f} minutes.",
        f"{machine['cpus']} CPUs ({machine['processor']}, {machine['architecture']}), {machine['system']}, "
        f"Python {versions['python']}, Redis {versions['redis']}, "
        f"{'no persistence' if durability == 'none' else f'append-only file, appendfsync {durability}'}, "
        f"{'TCP on 127.0.0.1' if results.conditions['transport'] == 'tcp' else 'a unix socket'}.",
    ]
    if others:
        lines.append(f"Newest versions: {others}.")
    if noise.get("steal_percent_median") is not None:
        lines.append(
            f"CPU time taken by the hypervisor: {noise['steal_percent_median']:.1f} % of one CPU (at most "
            f"{noise['steal_percent_highest']:.1f}). CPU time of other processes: "
            f"{noise['foreign_percent_median']:.1f} % of one CPU (at most {noise['foreign_percent_highest']:.1f}). "
            f"Load average: {noise['load_median']:.1f}."
        )
    if is_noisy(results):
        lines.append(
            "Other processes used the machine at the same time, so the figures show only the order of magnitude."
        )
    lines += [f"Not measured: {entry.system}, {entry.what}: {entry.reason}." for entry in results.absent]
    return "\n".join(lines) + "\n"


def section(results: Results, pictures: Mapping[str, Picture]) -> str:
    """Return the generated part of the page: the conditions, and each picture with its table."""
    parts = [conditions(results)]
    for name, picture in pictures.items():
        parts.append(
            f"### {picture.title}\n\n![{described(picture, rows_of(results, picture))}]"
            f"(../images/benchmarks/{name}.svg)\n\n<details><summary>Figures</summary>\n\n"
            f"{table(results, picture)}\n</details>\n"
        )
    return "\n".join(parts)


def summary(results: Results, pictures: Iterable[Picture]) -> str:
    """Return one row for each picture: the best figure of taskq, Go Asynq, Celery and the best other queue."""
    lines = ["| | taskq | Go Asynq | Celery | best of the others |", "|---|---|---|---|---|"]
    for picture in pictures:
        # Reversed, so that the best row of a system, which `rows_of` returns first, replaces its other rows.
        best = {row.system: row for row in reversed(rows_of(results, picture))}
        named = [
            f"{shown(best[name].median, best[name].unit)} {best[name].unit}" if name in best else "" for name in SYSTEMS
        ]
        other = next((row for row in rows_of(results, picture) if row.system not in SYSTEMS), None)
        last = f"{shown(other.median, other.unit)} {other.unit} ({other.system})" if other else ""
        lines.append(f"| {picture.title} | {' | '.join((*named, last))} |")
    return "\n".join([*conditions(results).splitlines()[:2], "", *lines]) + "\n"


def publish(results: Results, *, pictures: Path = PICTURES, page: Path = PAGE, short_page: Path = SUMMARY) -> list[str]:
    """Draw all pictures that have rows, put the tables on both pages, and return the names of the pictures.

    Pictures of an earlier run that have no rows any more are deleted.

    Raises:
        ValueError: A page has no marks.
    """
    drawn = {picture.name: picture for picture in PICTURES_OF_PEERS if rows_of(results, picture)}
    _write_pictures(pictures, {name: draw(results, picture) for name, picture in drawn.items()})
    _write_part(page, "benchmarks of peers", section(results, drawn))
    _write_part(short_page, "summary", summary(results, drawn.values()))
    return list(drawn)


def publish_aims(
    results: Results, peers: Results | None, *, pictures: Path = PICTURES_OF_OURS, page: Path = PAGE
) -> list[str]:
    """Publish a run with `--aims`, as `publish` does. `peers` are the published results of a run with `--peers`.

    Raises:
        ValueError: The page has no marks.
    """
    found = aims.verdicts(results, peers)
    shares = of_aims(results, found)
    drawn = {picture.name: picture for picture in PICTURES_OF_AIMS}
    sources = {name: shares if name == "aims" else results for name in drawn}
    drawn = {name: picture for name, picture in drawn.items() if rows_of(sources[name], picture)}
    _write_pictures(pictures, {name: draw(sources[name], picture) for name, picture in drawn.items()})
    parts = [conditions(results), aims.table(found)]
    for name, picture in drawn.items():
        words = described(picture, rows_of(sources[name], picture))
        parts.append(f"![{words}](../images/benchmarks/aims/{name}.svg)\n")
    parts.append(f"<details><summary>All rows</summary>\n\n{rows_table(results)}\n</details>\n")
    _write_part(page, "aims", "\n".join(parts))
    return list(drawn)


def publish_growth(results: Results, *, pictures: Path = PICTURES_OF_GROWTH, page: Path = SUMMARY) -> list[str]:
    """Publish a run of `benchmarks.growth`, as `publish` does.

    Raises:
        ValueError: The page has no marks.
    """
    bars, drawn = pictures_of_growth(results)
    _write_pictures(pictures, {picture.name: draw(bars, picture) for picture in drawn})
    parts, lines = [conditions(results)], ["| | | unit | median | lowest to highest |", "|---|---|---|---|---|"]
    for picture in drawn:
        rows = rows_of(bars, picture)
        parts.append(f"![{described(picture, rows)}](../images/benchmarks/growth/{picture.name}.svg)\n")
        for row in rows:
            median, low, high = (shown(value, row.unit) for value in (row.median, row.lowest, row.highest))
            lines.append(f"| {picture.title} | {row.title} | {row.unit} | {median} | {low} to {high} |")
    parts.append("<details><summary>Figures</summary>\n\n" + "\n".join(lines) + "\n\n</details>\n")
    _write_part(page, "growth", "\n".join(parts))
    return [picture.name for picture in drawn]


def rows_table(results: Results) -> str:
    """Return all rows of a run of taskq alone as a Markdown table."""
    lines = [
        "| row | unit | median | lowest to highest | percent of its base row | CPUs |",
        "|---|---|---|---|---|---|",
    ]
    for row in results.rows:
        spread = f"{shown(row.lowest, row.unit)} to {shown(row.highest, row.unit)}"
        share = f"{row.median / row.limit:.0%}" if row.limit else ""
        lines.append(
            f"| {row.title} | {row.unit} | {shown(row.median, row.unit)} | {spread} | {share} | {row.placement} |"
        )
    where = [f"*{name}*: {words}." for name, words in results.placements.items()]
    return "\n".join([*lines, "", *where]) + "\n"


def _write_pictures(folder: Path, drawn: Mapping[str, str]) -> None:
    """Write pictures, and delete pictures that are no longer drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.stem not in drawn:
            old.unlink()
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")


def _write_part(page: Path, name: str, text: str) -> None:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no lines {begin.strip()!r} and {end.strip()!r}")
    page.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def replace(results: Results) -> None:
    """Replace the results on the pages, and print the names of the pictures."""
    results.write(RESULTS)
    for name in publish(results):
        print(f"{PICTURES.relative_to(ROOT)}/{name}.svg")
    if AIMS.exists():  # one aim compares taskq with the new results
        publish_aims(Results.read(AIMS), results)


def replace_aims(results: Results) -> None:
    """Replace the results of a run with `--aims` on the pages, as `replace` does."""
    results.write(AIMS)
    for name in publish_aims(results, Results.read(RESULTS) if RESULTS.exists() else None):
        print(f"{PICTURES_OF_OURS.relative_to(ROOT)}/{name}.svg")


def replace_growth(results: Results) -> None:
    """Replace the results of a run of `benchmarks.growth` on the page, as `replace` does."""
    results.write(GROWTH)
    for name in publish_growth(results):
        print(f"{PICTURES_OF_GROWTH.relative_to(ROOT)}/{name}.svg")


def main() -> int:
    """Publish the results in the file that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publishing", description=__doc__)
    parser.add_argument(
        "results", type=Path, help="results of `python -m benchmarks` with --peers or --aims, or of benchmarks.growth"
    )
    options = parser.parse_args()
    results = Results.read(options.results)
    is_of_peers = any(row.source == "reference" for row in results.rows)
    if results.command.startswith("python -m benchmarks.growth"):
        replace_growth(results)
    else:
        (replace if is_of_peers else replace_aims)(results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
