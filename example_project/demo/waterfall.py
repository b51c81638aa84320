"""Draw a trace as a waterfall: a row for each span, in the colour of its process, from its start to its end."""

from collections.abc import Sequence
from html import escape

from example_project.demo.otlp import Span

_WIDTH, _NAMES, _EDGE, _ROW, _HEAD, _FOOT = 960, 380, 20, 30, 84, 20
_STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.paper { fill: #ffffff; stroke: #d1d9e0; } .ink { fill: #1f2328; } .soft { fill: #59636e; } .axis { stroke: #e4e9ee; }
.p0 { fill: #3b6fb6; } .p1 { fill: #1a7f64; } .p2 { fill: #a8641f; }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117; stroke: #3d444d; } .ink { fill: #f0f6fc; } .soft { fill: #9198a1; } .axis { stroke: #262c33; }
.p0 { fill: #6ea3e8; } .p1 { fill: #3fb68b; } .p2 { fill: #dd9a52; }
}
"""


def waterfall(title: str, spans: Sequence[tuple[int, Span]]) -> str:
    """Return an SVG of a trace.

    Args:
        title: The request that began the trace.
        spans: The spans as (depth, span), each span before its children. At least one.
    """
    begun = min(span.start_ns for _, span in spans)
    whole = max(span.end_ns for _, span in spans) - begun
    width = _WIDTH - _NAMES - 2 * _EDGE - 70  # 70 for the durations, which are to the right of the bars
    services = list(dict.fromkeys(span.service for _, span in spans))
    height = _HEAD + _ROW * len(spans) + _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(_told(title, spans))}"><style>{_STYLE}</style>',
        f'<rect class="paper" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="ink" x="{_EDGE}" y="34" font-size="16" font-weight="600">{escape(title)}</text>',
    ]
    x = _EDGE
    for number, service in enumerate(services):
        parts.append(f'<rect class="p{number % 3}" x="{x}" y="49" width="10" height="10" rx="2"/>')
        parts.append(f'<text class="soft" x="{x + 16}" y="58" font-size="12">{escape(service)}</text>')
        x += 16 + 8 * len(service) + 20
    for quarter in range(5):
        x = _NAMES + width * quarter // 4
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{_HEAD - 12}" y2="{height - _FOOT}"/>')
        time = f"{whole * quarter / 4e6:.0f} ms"
        parts.append(f'<text class="soft" x="{x}" y="{_HEAD - 18}" font-size="11" text-anchor="middle">{time}</text>')
    for row, (depth, span) in enumerate(spans):
        y = _HEAD + row * _ROW
        left = _NAMES + width * (span.start_ns - begun) / whole
        long = max(2.0, width * (span.end_ns - span.start_ns) / whole)
        name_x = _EDGE + 18 * depth
        parts.append(f'<text class="ink" x="{name_x}" y="{y + 14}" font-size="13">{escape(span.name)}</text>')
        parts.append(
            f'<rect class="p{services.index(span.service) % 3}" x="{left:.1f}" y="{y + 2}" width="{long:.1f}" '
            'height="16" rx="3"/>'
        )
        end = f'x="{left + long + 6:.1f}" y="{y + 14}"'
        parts.append(f'<text class="soft" {end} font-size="11">{span.duration_ms:.1f} ms</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _told(title: str, spans: Sequence[tuple[int, Span]]) -> str:
    rows = "; ".join(f"{span.name} in {span.service}, {span.duration_ms:.1f} ms" for _, span in spans)
    return f"Trace of {title}: {rows}"
