"""Put results on the page on performance: `python -m benchmarks.publishing FILE.json` writes pictures and tables.

The results are kept beside the pictures, from which they can be drawn anew.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from benchmarks.plots import EARLIER, PICTURES_OF_PEERS, Picture, described, detail_of, draw, is_noisy, rows_of
from benchmarks.results import Results, shown

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "images" / "benchmarks"
RESULTS = PICTURES / "peers.json"
PAGE = ROOT / "docs" / "explanation" / "performance.md"


def table(results: Results, picture: Picture) -> str:
    """Return the rows of a picture as a table of Markdown."""
    rows = rows_of(results, picture)
    lines = [f"| system | setting | {rows[0].unit} | lowest to highest |", "|---|---|---|---|"]
    for row in rows:
        spread = f"{shown(row.lowest, row.unit)} to {shown(row.highest, row.unit)}" if row.runs else EARLIER
        lines.append(f"| {row.system} | {detail_of(row)} | {shown(row.median, row.unit)} | {spread} |")
    return "\n".join(lines) + "\n"


def conditions(results: Results) -> str:
    """Return where and how it was measured, one sentence a line."""
    machine, versions, noise = results.machine, results.versions, results.noise
    others = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in ("redis", "python"))
    durability = results.conditions["durability"]
    lines = [
        f"Taken {results.taken[:10]} with `{results.command}` in {results.duration_s / 60:.0f} minutes.",
        f"{machine['cpus']} CPUs ({machine['processor']}, {machine['architecture']}), {machine['system']}, "
        f"Python {versions['python']}, Redis {versions['redis']}, "
        f"{'no persistence' if durability == 'none' else f'append-only file, appendfsync {durability}'}, "
        f"{'TCP on 127.0.0.1' if results.conditions['transport'] == 'tcp' else 'a unix socket'}.",
        f"Newest versions: {others}.",
    ]
    if noise.get("steal_percent_median") is not None:
        lines.append(
            f"Stolen by the host: {noise['steal_percent_median']:.1f} % of a CPU (at most "
            f"{noise['steal_percent_highest']:.1f}); taken by foreign processes: "
            f"{noise['foreign_percent_median']:.1f} % of a CPU (at most {noise['foreign_percent_highest']:.1f}); "
            f"load {noise['load_median']:.1f}."
        )
    if is_noisy(results):
        lines.append("The machine was not quiet: take the figures for the order of size, and measure on your own.")
    lines += [f"Not measured: {entry.system}, {entry.what}: {entry.reason}." for entry in results.absent]
    return "\n".join(lines) + "\n"


def section(results: Results, pictures: Mapping[str, Picture]) -> str:
    """Return what stands on the page between its marks: the conditions, and each picture with its table."""
    parts = [conditions(results)]
    for name, picture in pictures.items():
        parts.append(
            f"### {picture.title}\n\n![{described(picture, rows_of(results, picture))}]"
            f"(../images/benchmarks/{name}.svg)\n\n<details><summary>Figures</summary>\n\n"
            f"{table(results, picture)}\n</details>\n"
        )
    return "\n".join(parts)


def publish(results: Results, *, pictures: Path = PICTURES, page: Path = PAGE) -> list[str]:
    """Draw all pictures that there are rows for, put the tables on the page, and return the names of the pictures.

    Pictures of an earlier run that there are no rows for any more are deleted.

    Raises:
        ValueError: The page has no marks.
    """
    drawn = {picture.name: picture for picture in PICTURES_OF_PEERS if rows_of(results, picture)}
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        if old.stem not in drawn:
            old.unlink()
    for name, picture in drawn.items():
        (pictures / f"{name}.svg").write_text(draw(results, picture), encoding="utf-8")
    begin, end = "<!-- benchmarks of peers: begin -->\n", "<!-- benchmarks of peers: end -->\n"
    text = page.read_text(encoding="utf-8")
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no lines {begin.strip()!r} and {end.strip()!r}")
    page.write_text(f"{head}{begin}\n{section(results, drawn)}\n{end}{tail}", encoding="utf-8")
    return list(drawn)


def replace(results: Results) -> None:
    """Put results in the place of those that the page has, and say which pictures it shows."""
    results.write(RESULTS)
    for name in publish(results):
        print(f"{PICTURES.relative_to(ROOT)}/{name}.svg")


def main() -> int:
    """Write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publishing", description=__doc__)
    parser.add_argument("results", type=Path, help="what `python -m benchmarks --peers --json FILE` wrote")
    options = parser.parse_args()
    replace(Results.read(options.results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
