"""Draw a chart of the soak as SVG: tasks enqueued and finished per second, and the faults."""

from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.soak.ledger import Event
from tests.soak.schedule import Plan

WIDTH, LEFT, RIGHT, TOP, HEIGHT, ROW = 1200, 60, 20, 44, 240, 16
INK, MUTED, GRID, DONE, ENQUEUED, RETRIED, BAR = (
    "#1f2933",
    "#6b7683",
    "#e3e7ec",
    "#1f6feb",
    "#8a94a0",
    "#d1242f",
    "#f2a65a",
)


def draw(events: Sequence[Event], plan: Plan, titles: dict[int, str]) -> str:
    """Return the SVG text.

    Args:
        events: Events of the merged ledgers.
        plan: The plan, for the heading.
        titles: Names of the faults by number.
    """
    begun = next((event["t"] for event in events if event["event"] == "attempt"), 0.0)
    bars = _bars(events, begun)
    done = _per_second(events, "end", begun)
    enqueued = _per_second(events, "acknowledged", begun)
    again = _per_second(events, "recovered", begun)
    last = max([*done, *enqueued, *(int(bar[2]) for bar in bars), 1])
    highest = max([*done.values(), *enqueued.values(), 1])
    step = next(each for each in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**6) if highest / each <= 6)
    top = (highest // step + 1) * step
    rows = _rows(bars)
    height = TOP + HEIGHT + 40 + ROW * (max(rows, default=-1) + 1) + 16

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * max(0.0, second) / last

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - value / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" font-size="14" font-weight="600" fill="{INK}">'
        f"Soak, profile {escape(plan.profile)}, seed {plan.seed}: tasks per second</text>",
    ]
    legend = LEFT
    for colour, name in ((DONE, "finished"), (ENQUEUED, "enqueued"), (RETRIED, "taken back from lost workers")):
        parts.append(f'<rect x="{legend}" y="27" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{legend + 19}" y="33" fill="{MUTED}">{name}</text>')
        legend += 40 + 6 * len(name)
    for value in range(0, top + 1, step):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{GRID}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="{MUTED}">{value}</text>')
    every = next(each for each in (5, 10, 20, 30, 60, 120, 300, 600, 1800) if last / each <= 14 or each == 1800)
    parts += [
        f'<text x="{x(second):.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle" fill="{MUTED}">{second} s</text>'
        for second in range(0, last + 1, every)
    ]
    for number, start, end in bars:
        parts.append(
            f'<rect x="{x(start):.1f}" y="{TOP}" width="{max(1.0, x(end) - x(start)):.1f}" height="{HEIGHT}" '
            f'fill="{BAR}" opacity="0.13"><title>{number}</title></rect>'
        )
    for counts, colour, width in ((enqueued, ENQUEUED, 1), (done, DONE, 1.6)):
        points = " ".join(f"{x(second + 0.5):.1f},{y(counts[second]):.1f}" for second in range(last))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    for second, count in sorted(again.items()):
        parts.append(
            f'<rect x="{x(second):.1f}" y="{y(count):.1f}" width="3" height="{y(0) - y(count):.1f}" fill="{RETRIED}"/>'
        )
    for (number, start, end), row in zip(bars, rows, strict=True):
        at = TOP + HEIGHT + 30 + ROW * row
        label = f"{number} {titles[number]}"
        fits = x(end) + 6 * len(label) < WIDTH
        place = f'x="{x(end) + 3:.1f}"' if fits else f'x="{x(start) - 3:.1f}" text-anchor="end"'
        parts.append(
            f'<rect x="{x(start):.1f}" y="{at}" width="{max(2.0, x(end) - x(start)):.1f}" height="{ROW - 4}" '
            f'rx="2" fill="{BAR}"/><text {place} y="{at + 10}" fill="{INK}" font-size="10">{escape(label)}</text>'
        )
    parts.append("</svg>\n")
    return "\n".join(parts)


def _per_second(events: Sequence[Event], kind: str, begun: float) -> Counter[int]:
    return Counter(int(event["t"] - begun) for event in events if event["event"] == kind and event["t"] >= begun)


def _bars(events: Sequence[Event], begun: float) -> list[tuple[int, float, float]]:
    """Return (number, start, end) of each fault, in seconds."""
    started: dict[str, tuple[int, float]] = {}
    bars = []
    for event in events:
        if event["event"] == "fault":
            started[event["seed"]] = (event["number"], event["t"] - begun)
        elif event["event"] == "fault over":
            number, start = started.pop(event["seed"])
            bars.append((number, start, event["t"] - begun))
    return sorted(bars, key=lambda bar: bar[1])


def _rows(bars: Sequence[tuple[int, float, float]]) -> list[int]:
    """Return a row number for each bar, so that bars and their labels do not overlap."""
    label = 0.17 * max((end for _, _, end in bars), default=0.0)
    free: list[float] = []
    rows = []
    for _, start, end in bars:
        row = next((index for index, until in enumerate(free) if until <= start - label), None)
        if row is None:
            row = len(free)
            free.append(0.0)
        free[row] = end + label
        rows.append(row)
    return rows
