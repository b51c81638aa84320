"""Test the charts of the dashboard: their lines, their time span, and the source of their values."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from taskq_core import TaskQ
from taskq_core.views import line_path, scale_top
from taskq_dashboard.charts import MEASURES, chart
from taskq_dashboard.pages.metrics import CHOSEN_MOST, QUEUES_MOST
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_dashboard.dashboards import Fields, dashboard_of, looking
from tests.taskq_fastapi.pasts import Past

redis = pytest.mark.redis
KEYS = [measure.key for measure in MEASURES]
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(seconds=1000)


@pytest.fixture
def past(server: RedisServer) -> Past:
    return Past(server)


def figures(html: str) -> dict[str, str]:
    """Return the charts of a page by their key."""
    parts = html.split('<figure class="chart" id="chart-')[1:]
    return {part.partition('"')[0]: part.partition("</figure>")[0] for part in parts}


def paths(figure: str) -> list[str]:
    """Return the lines of a chart."""
    return [str(found["d"]) for tag, found in Fields(figure).tags if tag == "path" and "line" in str(found["class"])]


# --- drawing ----------------------------------------------------------------------------------------------------------


def at(second: float, value: float | None) -> tuple[datetime, float | None]:
    return BEGIN + timedelta(seconds=second), value


def test_a_line_connects_its_points() -> None:
    drawn = line_path([at(0, 0), at(500, 5), at(1000, 10)], top=10, begin=BEGIN, end=END)

    assert drawn == "M0 100L500 50L1000 0"


def test_a_line_has_a_gap_where_values_are_missing() -> None:
    """A single value is drawn as a dot."""
    points = [at(0, 10), at(100, 10), at(200, None), at(300, 0), at(400, None), at(900, 20)]

    assert line_path(points, top=10, begin=BEGIN, end=END) == "M0 0L100 0M300 100h0M900 0h0"
    assert line_path([at(0, None)], top=10, begin=BEGIN, end=END) == ""


@rows(
    ("highest", "most", "is_whole", "top"),
    [
        (0, None, False, 1),
        (0, 1.0, False, 1),
        (0.03, None, False, 0.05),
        (1, None, True, 1),
        (0.2, None, True, 1),
        (7, None, True, 10),
        (11, None, True, 20),
        (5_000_000, None, True, 5_000_000),
        (0.7, 1.0, False, 1.0),
        (0.001, 1.0, False, 0.001),
    ],
)
def test_a_scale_ends_at_a_round_number(highest: float, most: float | None, is_whole: bool, top: float) -> None:
    assert scale_top(highest, most=most, is_whole=is_whole) == pytest.approx(top)


def test_a_scale_of_bytes_ends_at_a_round_number_of_its_unit() -> None:
    tops = [scale_top(highest, most=None, is_whole=True, kilo=1024) for highest in (0, 700, 1024, 3000, 1_500_000)]

    assert tops == [1, 1000, 1024, 5 * 1024, 2 * 1024**2]


def test_a_chart_has_a_text_description() -> None:
    size = next(measure for measure in MEASURES if measure.key == "size")

    drawn = chart(size, {"a": [at(0, 3), at(10, 7)], "b": []}, begin=BEGIN, end=END)

    assert (drawn.top, drawn.description) == ("10", "Queue size: highest 7")
    assert [(line.name, line.last, line.mean, line.highest) for line in drawn.lines] == [
        ("a", "7", "5", "7"),
        ("b", "-", "-", "-"),
    ]
    assert not drawn.is_empty
    assert chart(size, {"b": []}, begin=BEGIN, end=END).is_empty


# --- pages ------------------------------------------------------------------------------------------------------------


@redis
async def test_the_page_draws_ten_charts_from_the_samples(taskq: TaskQ, past: Past) -> None:
    past.samples("default", per_s=5)
    past.samples("low", per_s=2)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/metrics")

    found = figures(page.text)
    assert list(found) == KEYS
    assert all(len(paths(figure)) == 2 for figure in found.values())
    assert 'aria-label="Processed per second: highest 5.00/s"' in found["processed"]
    assert 'aria-label="Busy worker slots: highest 75.0 %"' in found["utilisation"]
    assert '<th scope="row"><bdi>low</bdi></th><td class="number">2.00/s</td>' in found["processed"]
    assert re.search(r"<title>[0-9-]+ [0-9:]+ UTC\ndefault: 5.00/s\nlow: 2.00/s</title>", found["processed"])
    assert "style=" not in page.text
    assert len(page.content) < 150_000


@redis
@rows("duration", ["1h", "6h", "1d", "8d", "30d", "90m", "31h30m"])
async def test_charts_accept_any_time_range(taskq: TaskQ, past: Past, duration: str) -> None:
    past.samples("default")

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/metrics", params={"duration": duration})

    assert page.status_code == 200
    assert paths(figures(page.text)["size"])
    chosen = [found for tag, found in Fields(page.text).tags if tag == "a" and found.get("aria-current") == "true"]
    assert [str(found["href"]) for found in chosen] == (
        [f"metrics?duration={duration}"] if duration in ("1h", "6h", "1d", "8d", "30d") else []
    )


@redis
async def test_a_gap_breaks_the_lines(taskq: TaskQ, past: Past) -> None:
    past.samples("default", gap=(100, 200))

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/metrics")

    assert paths(figures(page.text)["size"])[0].count("M") == 2


@redis
async def test_the_time_range_can_be_fixed_moved_and_released(taskq: TaskQ, past: Past) -> None:
    past.samples("default")

    async with looking(dashboard_of(taskq)) as web:

        async def follow(label: str, address: str) -> str:
            page = await web.get(f"/{address}")
            link = next(line for line in page.text.splitlines() if f">{label}</a>" in line)
            return Fields(link).links[0]

        frozen = await follow("Freeze", "metrics?duration=1h&queue=default")
        earlier = await follow("Earlier", frozen)
        back = await follow("Later", earlier)
        now = await follow("Up to now", back)
        page = await web.get(f"/{earlier}")

    def end(address: str) -> datetime:
        return datetime.fromisoformat(parse_qs(urlsplit(address).query)["end"][0])

    assert abs(end(frozen).timestamp() - past.now_s) < 60
    assert end(frozen) - end(earlier) == timedelta(minutes=30)
    assert end(back) == end(frozen)
    assert now == "metrics?duration=1h&queue=default"
    assert paths(figures(page.text)["size"])


@redis
async def test_queues_can_be_selected(taskq: TaskQ, past: Past) -> None:
    for number in range(QUEUES_MOST + 2):
        past.samples(f"q{number:02}", count=3)

    async with looking(dashboard_of(taskq)) as web:
        some = await web.get("/metrics")
        two = await web.get("/metrics?queue=q11&queue=q03&queue=q11&queue=")

    assert f"The first {QUEUES_MOST} of {QUEUES_MOST + 2} queues are shown" in some.text
    assert len(paths(figures(some.text)["size"])) == QUEUES_MOST
    assert len(paths(figures(two.text)["size"])) == 2
    assert two.text.count(" selected>") == 2


@redis
@rows(
    ("query", "status", "expected"),
    [
        ("duration=1y", 400, "duration must be 1h, 6h, 1d, 8d, 30d, or a time such as 90m"),
        ("duration=-1h", 400, "duration must be"),
        ("duration=1s", 400, "duration must be"),
        ("duration=99999999h", 400, "duration must be"),
        ("end=yesterday", 400, "end must be a time such as 2030-01-31T12:00"),
        ("end=9999-12-31T23:59:59Z", 400, "end must be a time"),
        ("end=0001-01-01", 400, "end must be a time"),
        ("queue=none", 404, "no queue"),
        ("&".join(f"queue=q{number}" for number in range(CHOSEN_MOST + 1)), 400, "at most 20 queues"),
    ],
)
async def test_invalid_queries_show_an_error(taskq: TaskQ, past: Past, query: str, status: int, expected: str) -> None:
    past.samples("default", count=3)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get(f"/metrics?{query}")

    assert (page.status_code, expected in page.text) == (status, True)


@redis
@rows("end", ["2000-01-01T00:00", "9000-01-01T00:00", "2030-01-31T12:00:00+02:00"])
async def test_a_time_range_without_samples_shows_empty_charts(taskq: TaskQ, past: Past, end: str) -> None:
    past.samples("default", count=3)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/metrics", params={"end": end})

    assert page.status_code == 200
    assert page.text.count("No data for this period.") == len(MEASURES)


@redis
async def test_without_queues_no_chart_is_drawn(taskq: TaskQ) -> None:
    async with looking(dashboard_of(taskq)) as web:
        assert "There are no queues yet" in (await web.get("/metrics")).text


@redis
async def test_names_of_queues_are_escaped(taskq: TaskQ, past: Past) -> None:
    past.samples(HOSTILE)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/metrics", params={"queue": HOSTILE})

    assert len(paths(figures(page.text)["size"])) == 1
    assert_escaped(page.text)
