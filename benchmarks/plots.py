"""Draw results: `python -m benchmarks.plots FILE.json` writes SVG pictures, and tables into the page on performance.

The results are kept beside the pictures, from which they can be drawn anew.

A picture is a row of bars: the median, the lowest and the highest run as a whisker. It has a light and a dark face, of
which the reader's browser takes one. Bars of what was measured earlier are hollow and say so.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmarks.results import Results, Row, shown

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "images" / "benchmarks"
RESULTS = PICTURES / "peers.json"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
EARLIER = "measured earlier, not in this run"
OURS = "taskq"
NOISY_PERCENT = 10.0
"""Of a CPU, by foreign processes; beyond that the page says that the machine was not quiet."""

_WIDTH, _LABELS, _FIGURES, _EDGE = 960, 410, 96, 20
_BAR, _STEP, _HEAD, _FOOT = 14, 24, 66, 44
_STYLE = """
svg { color-scheme: light dark; font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.paper { fill: #ffffff; } .ink { fill: #1f2328; } .soft { fill: #59636e; } .axis { stroke: #d1d9e0; }
.whisker { stroke: #1f2328; } .ours { fill: #1a7f64; } .peer { fill: #7c8ea0; }
.earlier { fill: none; stroke: #7c8ea0; stroke-dasharray: 3 2; }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117; } .ink { fill: #f0f6fc; } .soft { fill: #9198a1; } .axis { stroke: #3d444d; }
.whisker { stroke: #f0f6fc; } .ours { fill: #3fb68b; } .peer { fill: #6e7f92; }
.earlier { fill: none; stroke: #8b9db0; stroke-dasharray: 3 2; }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of one or several measures with the same unit.

    Args:
        name: Of the file.
        measures: Rows of these are drawn.
        is_logarithmic: The axis grows by factors, for figures that are far apart.
    """

    name: str
    title: str
    measures: tuple[str, ...]
    is_logarithmic: bool = False


PICTURES_OF_PEERS: Sequence[Picture] = (
    Picture(name="drain-50", title="Tasks that do nothing, one process, concurrency 50", measures=("drain 50",)),
    Picture(name="drain-10", title="Tasks that do nothing, one process, concurrency 10", measures=("drain 10",)),
    Picture(name="drain-two", title="Tasks that do nothing, two processes", measures=("drain two",)),
    Picture(name="io", title="Tasks that wait for 10 ms, concurrency 50 (ideal 5,000/s)", measures=("io",)),
    Picture(
        name="enqueue",
        title="Enqueue one after another",
        measures=("enqueue sync", "enqueue async"),
    ),
    Picture(name="enqueue-bulk", title="Enqueue many", measures=("enqueue bulk",)),
    Picture(
        name="latency-p50",
        title="From enqueue to start at 200/s, median",
        measures=("latency p50",),
        is_logarithmic=True,
    ),
    Picture(
        name="latency-p99", title="From enqueue to start at 200/s, 99 %", measures=("latency p99",), is_logarithmic=True
    ),
    Picture(name="start-up", title="From the start of a worker to its first task", measures=("start-up",)),
    Picture(name="idle-memory", title="Resident memory of an idle worker", measures=("idle RSS",)),
    Picture(
        name="idle-commands",
        title="Commands that an idle worker runs in Redis a second",
        measures=("idle commands",),
    ),
)


def rows_of(results: Results, picture: Picture) -> list[Row]:
    """Return the rows of a picture, the best one first."""
    rows = [row for row in results.rows if row.measure in picture.measures]
    return sorted(rows, key=lambda row: -row.median if row.higher_is_better else row.median)


def draw(results: Results, picture: Picture) -> str:
    """Return a picture as SVG.

    Raises:
        ValueError: There is nothing to draw.
    """
    rows = rows_of(results, picture)
    if not rows:
        raise ValueError(f"no row has a measure of {picture.measures!r}")
    scale = _Scale(rows, is_logarithmic=picture.is_logarithmic)
    height = _HEAD + _STEP * len(rows) + _FOOT
    unit = rows[0].unit
    better = "more is better" if rows[0].higher_is_better else "less is better"
    placements = "; ".join(
        dict.fromkeys(results.placements[row.placement] for row in rows if row.placement in results.placements)
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(_described(picture, rows))}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="6"/>',
        f'<text class="ink" x="{_EDGE}" y="28" font-size="16" font-weight="600">{escape(picture.title)}</text>',
        f'<text class="soft" x="{_EDGE}" y="48" font-size="12">{escape(unit)}, {better}; {_said(results)}'
        f"{', logarithmic' if picture.is_logarithmic else ''}</text>",
    ]
    bottom = _HEAD + _STEP * len(rows)
    for value in scale.ticks():
        x = scale.x(value)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD - 6}" y2="{bottom}"/>')
        text = f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:g}"
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{bottom + 14}" font-size="11" text-anchor="middle">{text}</text>'
        )
    for index, row in enumerate(rows):
        parts += _bar(row, scale, _HEAD + _STEP * index)
    parts.append(
        f'<text class="soft" x="{_EDGE}" y="{height - 10}" font-size="11">{escape(placements)}</text>',
    )
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Row, scale: "_Scale", top: int) -> list[str]:
    middle = top + _STEP / 2
    is_earlier = row.source != "measured"
    kind = "earlier" if is_earlier else "ours" if row.system == OURS else "peer"
    zero, x = scale.x(scale.low), scale.x(row.median)
    weight = ' font-weight="600"' if row.system == OURS else ""
    detail = _detail(row)
    words = f'{escape(row.system)}<tspan class="soft" font-size="11" font-weight="400">  {escape(detail)}</tspan>'
    parts = [
        f'<text class="ink" x="{_LABELS - 8}" y="{middle + 4:.1f}" font-size="12" text-anchor="end"{weight}>'
        f"{words}</text>",
        f'<rect class="{kind}" x="{zero:.1f}" y="{middle - _BAR / 2:.1f}" width="{max(1.0, x - zero):.1f}" '
        f'height="{_BAR}" rx="2"/>',
    ]
    end = x
    if row.highest > row.lowest:
        low, high = scale.x(row.lowest), scale.x(row.highest)
        end = max(end, high)
        parts.append(
            f'<path class="whisker" fill="none" d="M{low:.1f} {middle - 4:.1f}v8M{low:.1f} {middle:.1f}H{high:.1f}'
            f'M{high:.1f} {middle - 4:.1f}v8"/>'
        )
    parts.append(
        f'<text class="ink" x="{end + 6:.1f}" y="{middle + 4:.1f}" font-size="12"{weight}>'
        f"{shown(row.median, row.unit)}</text>"
    )
    return parts


class _Scale:
    """From figures to places on the axis."""

    def __init__(self, rows: Sequence[Row], *, is_logarithmic: bool) -> None:
        self._is_logarithmic = is_logarithmic
        highest = max(row.highest for row in rows) or 1.0
        if is_logarithmic:
            lowest = min(value for row in rows if (value := row.lowest) > 0)
            self.low = 10 ** math.floor(math.log10(lowest))
            self.high = max(highest, self.low * 10)
        else:
            self.low, self.high = 0.0, highest

    def x(self, value: float) -> float:
        """Return where a figure stands, within the axis."""
        if self._is_logarithmic:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return _LABELS + share * (_WIDTH - _LABELS - _FIGURES)

    def ticks(self) -> list[float]:
        """Return the figures that the axis names."""
        if self._is_logarithmic:
            exponents = range(round(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**exponent for exponent in exponents]
        rough = self.high / 4
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
        return [step * number for number in range(int(self.high / step) + 1)]


def _said(results: Results) -> str:
    runs = results.conditions["runs"]
    return f"median, lowest and highest of {runs} runs" if runs > 1 else "one run"


def _detail(row: Row) -> str:
    """Return what a row says beside the name of its system."""
    if row.source != "measured":
        return f"polls every 10 ms; {EARLIER}" if "poll" in row.title else EARLIER
    if row.measure.startswith("enqueue"):  # not a matter of how workers are set up
        return row.title.removeprefix("enqueue, ").removeprefix("one after another, ")
    return row.setting


def _described(picture: Picture, rows: Sequence[Row]) -> str:
    best = rows[0]
    return f"{picture.title}: {len(rows)} bars, {best.system} first with {shown(best.median, best.unit)} {best.unit}"


def table(results: Results, picture: Picture) -> str:
    """Return the rows of a picture as a table of Markdown."""
    rows = rows_of(results, picture)
    lines = [f"| system | setting | {rows[0].unit} | lowest to highest |", "|---|---|---|---|"]
    for row in rows:
        spread = f"{shown(row.lowest, row.unit)} to {shown(row.highest, row.unit)}" if row.runs else EARLIER
        lines.append(f"| {row.system} | {_detail(row)} | {shown(row.median, row.unit)} | {spread} |")
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
    if (noise.get("foreign_percent_median") or 0.0) > NOISY_PERCENT:
        lines.append("The machine was not quiet: take the figures for the order of size, and measure on your own.")
    lines += [f"Not measured: {entry.system}, {entry.what}: {entry.reason}." for entry in results.absent]
    return "\n".join(lines) + "\n"


def section(results: Results, pictures: Mapping[str, Picture]) -> str:
    """Return what stands on the page between its marks: the conditions, and each picture with its table."""
    parts = [conditions(results)]
    for name, picture in pictures.items():
        parts.append(
            f"### {picture.title}\n\n![{_described(picture, rows_of(results, picture))}]"
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
    """Draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("results", type=Path, help="what `python -m benchmarks --peers --json FILE` wrote")
    options = parser.parse_args()
    replace(Results.read(options.results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
