"""Test the exporter on its own port: its responses, and its access checks."""

import base64
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from taskq_core import ConfigurationError, TaskQ
from taskq_core.exporter import Exporter, ExporterConfig
from taskq_core.exporter.serving import ExporterPort, read_people, wait_s
from tests.taskq_core.exporter.scraping import Scraped

pytestmark = pytest.mark.redis

Open = Callable[..., Coroutine[Any, Any, str]]


@pytest.fixture
async def open_port(app: TaskQ) -> AsyncIterator[Open]:
    """Open the port of an exporter; returns its address."""
    ports: list[ExporterPort] = []

    async def open_port(**values: Any) -> str:
        config = ExporterConfig(port=0, **values)
        port = ExporterPort(Exporter(app, config), config)
        await port.start()
        ports.append(port)
        return f"http{'s' if config.tls_cert else ''}://127.0.0.1:{port.port}"

    yield open_port
    for port in ports:
        await port.close()


async def get(address: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(verify=more.pop("verify", True), trust_env=False, timeout=60) as client:
        return await client.get(address, **more)


async def test_metrics_and_health(app: TaskQ, open_port: Open) -> None:
    await app.remote("plain").adelay()
    address = await open_port()

    metrics = await get(f"{address}/metrics")

    assert Scraped(metrics.text).of("asynq_queue_size", queue="default") == 1
    assert metrics.headers["content-encoding"] == "gzip"
    assert [(await get(address + path)).status_code for path in ("/", "/livez", "/readyz", "/other")] == [
        *(200, 200, 200),
        404,
    ]


async def test_without_redis_it_lives_and_is_not_ready() -> None:
    app = TaskQ("redis://127.0.0.1:1/0")  # a port that no other test takes
    config = ExporterConfig(port=0)
    port = ExporterPort(Exporter(app, config), config)
    await port.start()
    address = f"http://127.0.0.1:{port.port}"

    metrics = await get(f"{address}/metrics")
    states = [(await get(address + path)).status_code for path in ("/livez", "/readyz")]
    await port.close()
    await app.aclose()

    assert (metrics.status_code, Scraped(metrics.text).of("taskq_up")) == (200, 0)
    assert states == [200, 503]


async def test_an_open_port_of_this_machine_answers_to_its_names_only(open_port: Open) -> None:
    """A web page whose host name resolves to this machine gets no data."""
    address = await open_port()
    port = address.rpartition(":")[2]

    told = {
        host: (await get(f"{address}/metrics", headers={"Host": host})).status_code
        for host in (
            f"localhost:{port}",
            f"[::1]:{port}",
            "127.0.0.1",
            f"evil.example:{port}",
            "127.0.0.1.evil.example",
        )
    }

    assert list(told.values()) == [200, 200, 200, 403, 403]


async def test_whoever_is_let_in_comes_by_any_name(open_port: Open) -> None:
    address = await open_port(is_open=True)

    assert (await get(f"{address}/metrics", headers={"Host": "exporter.example"})).status_code == 200


async def test_names_and_passwords_are_asked_for_and_may_change_meanwhile(open_port: Open, tmp_path: Path) -> None:
    people = tmp_path / "people"
    people.write_text("# who scrapes\nprometheus:seCret:\u00e9\nother:x\n", encoding="utf-8")
    address = await open_port(auth_file=people)

    async def status(name: str, password: str) -> int:
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        return (await get(f"{address}/metrics", headers={"Authorization": f"Basic {pair}"})).status_code

    before = [await status("prometheus", "seCret:\u00e9"), await status("other", "x"), await status("prometheus", "x")]
    nobody = await get(f"{address}/metrics")
    garbage = await get(f"{address}/metrics", headers={"Authorization": "Basic %%%"})
    people.write_text("prometheus:new\n")
    after = [await status("prometheus", "seCret:\u00e9"), await status("prometheus", "new")]
    people.unlink()

    assert before == [200, 200, 401]
    assert (nobody.status_code, garbage.status_code) == (401, 401)
    assert nobody.headers["www-authenticate"].startswith("Basic ")
    assert after == [401, 200]
    assert await status("prometheus", "new") == 401, "without the file nobody is let in"
    assert (await get(f"{address}/livez")).status_code == 200, "a probe has no password"


async def test_tls(open_port: Open, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    address = await open_port(tls_cert=cert, tls_key=key)

    assert (await get(f"{address}/metrics", verify=trusting)).status_code == 200
    with pytest.raises(httpx.ConnectError):
        await get(f"{address}/metrics")


def test_a_file_that_names_nobody_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for text, words in [
        ("", "contains no user"),
        ("# x\n\n", "contains no user"),
        ("a:b\nc\n", "entry 2"),
        (":b\n", "entry 1"),
    ]:
        with subtests.test(text=text, words=words):
            (tmp_path / "people").write_text(text)

            with pytest.raises(ConfigurationError, match=words):
                read_people(tmp_path / "people")


def test_a_file_that_is_not_there_is_refused(app: TaskQ, tmp_path: Path) -> None:
    for values in ({"auth_file": tmp_path / "none"}, {"tls_cert": tmp_path / "none", "tls_key": tmp_path / "none"}):
        config = ExporterConfig(**values)
        with pytest.raises(ConfigurationError, match="none"):
            ExporterPort(Exporter(app, config), config)


def test_what_a_scraper_says_of_its_patience(subtests: pytest.Subtests) -> None:
    for said, seconds in [("10", 10), ("2.5", 2.5), ("", None), ("x", None), ("nan", None), ("-1", None)]:
        with subtests.test(said=said, seconds=seconds):
            assert wait_s(said) == seconds
