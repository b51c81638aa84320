"""Measure what a network between taskq and Redis costs, and what TLS costs: `python -m benchmarks.network`.

A relay delays all bytes, so that each request and its reply need the given round trip. The table shows tasks per second
and their share of a limit. The limit follows from the rate through the relay without a delay, so that it contains the
relay's own work, and from the additional round trip, which PINGs measure:

- A worker that fetches no task before a slot is free can settle and fetch in one round trip. So each slot ends one task
  in a round trip plus `slots / local rate`.
- A caller of `adelay` or `delay` waits for one round trip, so the limit is `callers / (round trip + callers / local
  rate)`.
- `enqueue_many` does not wait for a reply before it sends the next batch, so its limit is the local rate.

With `--tls` there is no delay. A separate process forwards the bytes to Redis, with and without TLS.
"""

import argparse
import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from benchmarks.placement import on, placements
from benchmarks.relay import delayed, round_trip_s
from benchmarks.scenarios import Figures
from tests.redis_server import RedisServer

Table = dict[str, list[tuple[float, float]]]
"""For each title the cells of its row: tasks per second, and their share of the limit or of the first cell."""
ROUND_TRIPS_MS = (0.5, 1.0, 2.5, 5.0)
SECONDS = 1.5
"""Approximate duration of a measurement through the relay."""


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement.

    Attributes:
        title: Title of the row.
        function: Name of the measuring function in `benchmarks.scenarios`.
        arguments: Arguments of the function, without `count`.
        local_count: Number of tasks without a delay.
        in_flight: Number of tasks that can be on their way at the same time; None without such a limit.
    """

    title: str
    function: str
    arguments: Mapping[str, Any]
    local_count: int
    in_flight: int | None

    def limit(self, trip_s: float, local_rate: float) -> float:
        """Return the limit of the rate in tasks per second, with an additional round trip."""
        if self.in_flight is None:
            return local_rate
        return self.in_flight / (trip_s + self.in_flight / local_rate)

    def measure(self, url: str, count: int) -> float:
        """Return the rate in tasks per second, measured in a separate process."""
        arguments = json.dumps({**self.arguments, "count": count})
        command = [sys.executable, "-m", "benchmarks.scenarios", self.function, url, arguments, ""]
        with on(placements()["apart"].workers):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures: Figures = json.loads(done.stdout)
        return figures["tasks_per_s"]


ROWS = (
    Row("worker, 50 slots", "drain", {"kind": "coroutine", "concurrency": 50}, 50_000, 50),
    Row("worker, 10 slots", "drain", {"kind": "coroutine", "concurrency": 10}, 30_000, 10),
    Row("`adelay`, 100 callers", "enqueue_async", {"callers": 100}, 20_000, 100),
    Row("`delay`, one caller", "enqueue_single", {}, 5_000, 1),
    Row("`enqueue_many`", "enqueue_bulk", {}, 100_000, None),
)


@contextmanager
def _redis() -> Iterator[RedisServer]:
    placement = placements()["apart"]
    with RedisServer(tcp=True) as server:
        if placement.redis:
            os.sched_setaffinity(server.pid, placement.redis)
        yield server


def _delays(server: RedisServer) -> Table:
    """Measure all rows once, without a delay and with each round trip."""
    table: Table = {}
    for row in ROWS:
        server.flushall()
        with on(placements()["apart"].redis), delayed(server.url, 0) as url:
            least_s = round_trip_s(url)
            local = row.measure(url, row.local_count)
        table[row.title] = [(local, 1.0)]
        for trip_ms in ROUND_TRIPS_MS:
            server.flushall()
            with on(placements()["apart"].redis), delayed(server.url, trip_ms) as url:
                limit = row.limit(round_trip_s(url) - least_s, local)
                rate = row.measure(url, max(200, round(limit * SECONDS)))
            table[row.title].append((rate, rate / limit))
    return table


def _with_tls(server: RedisServer, folder: Path) -> Table:
    """Measure all rows once, without and with TLS."""
    table: Table = {}
    for row in ROWS:
        table[row.title] = []
        for has_tls in (False, True):
            server.flushall()
            with on(placements()["apart"].redis), _forwarded(server, folder, has_tls=has_tls) as url:
                rate = row.measure(url, row.local_count)
            table[row.title].append((rate, rate / table[row.title][0][0] if has_tls else 1.0))
    return table


@contextmanager
def _forwarded(server: RedisServer, folder: Path, *, has_tls: bool) -> Iterator[str]:
    code = "import sys; from benchmarks.network import forward; forward(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(server.socket_path), str(folder) if has_tls else ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            secure = f"rediss://localhost:{port}/0?ssl_ca_certs={folder}/ca.pem"
            yield secure if has_tls else f"redis://localhost:{port}/0"
        finally:
            process.kill()


def forward(socket_path: str, folder: str) -> None:
    """Forward connections to a Unix socket until the process is killed, and print the port. A folder: with TLS."""
    import uvloop

    secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if folder else None
    if secure is not None:
        secure.load_cert_chain(f"{folder}/server.pem")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_unix_connection(socket_path)
        await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))

    async def serve() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=secure)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(serve())


def _markdown(tables: Sequence[Table], columns: Sequence[str]) -> str:
    """Return the medians of all rounds as a table."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for title in tables[0]:
        cells = []
        for column in range(len(columns)):
            rate = statistics.median(table[title][column][0] for table in tables)
            share = statistics.median(table[title][column][1] for table in tables)
            cells.append(f"{rate:,.0f}" if column == 0 else f"{rate:,.0f} ({share:.0%})".replace("%", " %"))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", action="store_true", help="measure TLS instead of a slow network")
    options = parser.parse_args()
    with _redis() as server, tempfile.TemporaryDirectory() as name:
        if options.tls:
            folder = Path(name)
            authority = trustme.CA()
            authority.cert_pem.write_to_path(folder / "ca.pem")
            authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
            columns = ["without TLS", "with TLS"]
            tables = [_with_tls(server, folder) for _ in range(options.rounds)]
        else:
            columns = ["no delay", *[f"{trip:g} ms" for trip in ROUND_TRIPS_MS]]
            tables = [_delays(server) for _ in range(options.rounds)]
    print(_markdown(tables, columns))


if __name__ == "__main__":
    main()
