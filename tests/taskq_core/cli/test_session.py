"""Where the broker is."""

import pytest

from taskq_core import ConfigurationError, Settings, TaskQ
from taskq_core.broker.connection import Address
from taskq_core.cli.session import Session, connected


def address(base: object = "redis://ada:pw@h:7000/1", **changes: object) -> str:
    settings = connected(Settings(url=base), changes)
    return TaskQ(settings=settings).runtime.endpoint.address


def test_a_url_without_a_scheme_is_read_as_host_and_port() -> None:
    assert address(url="localhost:7000") == "redis://localhost:7000/0"
    assert address(url="rediss://h") == "rediss://h:6379/0"


def test_options_override_database_and_user_of_the_url() -> None:
    assert address(db=5) == "redis://ada:***@h:7000/5"
    assert address(username="bob") == "redis://bob:***@h:7000/1"
    assert address("unix:///run/redis.sock", db=5) == "unix:///run/redis.sock?db=5"


def test_a_prompted_password_overrides_a_password_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq_core.cli.session._ask_password", lambda: "typed")

    kept = connected(Settings(url="redis://ada@h?password_file=/x"), {"db": 5}).url
    asked = connected(Settings(url="redis://ada@h?password_file=/x"), {"ask_password": True}).url

    assert (kept.password_file, kept.password) == ("/x", None)
    assert (asked.password_file, asked.password) == ("", "typed")


def test_an_option_replaces_the_prefix() -> None:
    assert connected(Settings(prefix="a"), {"prefix": "b"}).prefix == "b"
    assert connected(Settings(prefix="a"), {}).prefix == "a"


@pytest.mark.parametrize(
    ("url", "changes", "told"),
    [
        ("redis+cluster://h", {"db": 1}, "no numbered databases"),
        ("embedded://", {"username": "x"}, "neither user nor database"),
        ("redis://h", {"url": "http://h"}, "not a known scheme"),
        ("redis://h", {"prefix": "a{b"}, "brace"),
    ],
)
def test_invalid_options_are_refused(url: str, changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        address(url, **changes)


def test_a_client_in_place_of_a_url_cannot_be_changed(fake_redis: object) -> None:
    with pytest.raises(ConfigurationError, match="redis-py client"):
        connected(Settings(url=fake_redis), {"db": 1})
    assert isinstance(connected(Settings(url=fake_redis), {"url": "h", "db": 1}).url, Address)


def test_an_option_overrides_an_invalid_url_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKQ_URL", "nonsense")
    session = Session()
    session.given["url"] = "redis://h:7000/0"

    assert session.app.runtime.endpoint.address == "redis://h:7000/0"


def test_the_application_of_a_framework_is_used_and_not_closed() -> None:
    app = TaskQ("redis://h:7000/0")
    session = Session(app)
    runtime = app.runtime

    assert session.app is app
    session.close()
    assert app.runtime is runtime
