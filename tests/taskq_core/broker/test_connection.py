"""Test broker URLs: the meaning of each form, the errors for invalid URLs, and that no password is shown."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskq_core.broker.connection import Address, Endpoint, parse_url
from taskq_core.errors import ConfigurationError

SECRET = "hunter2"

ADDRESSES: list[tuple[str, dict[str, Any], str]] = [
    ("redis://h", {"hosts": (("h", 6379),)}, "redis://h:6379/0"),
    ("redis://h/", {"hosts": (("h", 6379),)}, "redis://h:6379/0"),
    ("redis://h:1/5", {"hosts": (("h", 1),), "db": 5}, "redis://h:1/5"),
    ("redis://h?db=5", {"hosts": (("h", 6379),), "db": 5}, "redis://h:6379/5"),
    ("redis://h/4?db=5", {"hosts": (("h", 6379),), "db": 4}, "redis://h:6379/4"),
    ("redis://H.Example", {"hosts": (("h.example", 6379),)}, "redis://h.example:6379/0"),
    ("redis://[::1]:7", {"hosts": (("::1", 7),)}, "redis://[::1]:7/0"),
    ("redis://user@h", {"hosts": (("h", 6379),), "username": "user"}, "redis://h:6379/0"),
    ("redis://:hunter2@h", {"hosts": (("h", 6379),), "password": SECRET}, "redis://:***@h:6379/0"),
    ("redis://:@h", {"hosts": (("h", 6379),), "password": ""}, "redis://:***@h:6379/0"),
    (
        "redis://user:hunter2@h",
        {"hosts": (("h", 6379),), "username": "user", "password": SECRET},
        "redis://user:***@h:6379/0",
    ),
    (
        "redis://us%40er:a%3Ab%2Fc%40%3F%25@h",
        {"hosts": (("h", 6379),), "username": "us@er", "password": "a:b/c@?%"},
        "redis://us@er:***@h:6379/0",
    ),
    ("redis://:a:b/c@d@h", {"hosts": (("h", 6379),), "password": "a:b/c@d"}, "redis://:***@h:6379/0"),
    (
        "redis://user@h?password_file=/run/secret",
        {"hosts": (("h", 6379),), "username": "user", "password_file": "/run/secret"},
        "redis://user:***@h:6379/0",
    ),
    (
        "redis+cluster://h?password_file=%2Frun%2Fa%20b",
        {"kind": "cluster", "hosts": (("h", 6379),), "password_file": "/run/a b"},
        "redis+cluster://:***@h:6379",
    ),
    (
        "unix:///run/r.sock?db=1&password_file=p",
        {"kind": "unix", "path": "/run/r.sock", "db": 1, "password_file": "p"},
        "unix://:***@/run/r.sock?db=1",
    ),
    (
        "redis+sentinel://h/m?password_file=/a&sentinel_password_file=/b&sentinel_username=su",
        {
            "kind": "sentinel",
            "hosts": (("h", 26379),),
            "master": "m",
            "password_file": "/a",
            "sentinel_username": "su",
            "sentinel_password_file": "/b",
        },
        "redis+sentinel://:***@h:26379/m?db=0",
    ),
    ("rediss://h", {"hosts": (("h", 6379),), "tls": True}, "rediss://h:6379/0"),
    (
        "rediss://h?ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k",
        {
            "hosts": (("h", 6379),),
            "tls": True,
            "tls_options": {"ssl_ca_certs": "/ca", "ssl_certfile": "/c", "ssl_keyfile": "/k"},
        },
        "rediss://h:6379/0",
    ),
    ("unix:///run/r.sock", {"kind": "unix", "path": "/run/r.sock"}, "unix:///run/r.sock?db=0"),
    ("unix:///run/r@x.sock?db=2", {"kind": "unix", "path": "/run/r@x.sock", "db": 2}, "unix:///run/r@x.sock?db=2"),
    (
        "unix://:hunter2@/run/a%20b.sock",
        {"kind": "unix", "path": "/run/a b.sock", "password": SECRET},
        "unix://:***@/run/a b.sock?db=0",
    ),
    (
        "redis+sentinel://h1,h2:7/main?db=3&sentinel_username=su&sentinel_password=hunter2",
        {
            "kind": "sentinel",
            "hosts": (("h1", 26379), ("h2", 7)),
            "master": "main",
            "db": 3,
            "sentinel_username": "su",
            "sentinel_password": SECRET,
        },
        "redis+sentinel://h1:26379,h2:7/main?db=3",
    ),
    (
        "rediss+sentinel://u:hunter2@h/main",
        {
            "kind": "sentinel",
            "hosts": (("h", 26379),),
            "master": "main",
            "username": "u",
            "password": SECRET,
            "tls": True,
        },
        "rediss+sentinel://u:***@h:26379/main?db=0",
    ),
    (
        "redis+cluster://:hunter2@h1,h2:7",
        {"kind": "cluster", "hosts": (("h1", 6379), ("h2", 7)), "password": SECRET},
        "redis+cluster://:***@h1:6379,h2:7",
    ),
    ("rediss+cluster://h", {"kind": "cluster", "hosts": (("h", 6379),), "tls": True}, "rediss+cluster://h:6379"),
    ("embedded://", {"kind": "embedded"}, "embedded://"),
    ("embedded:///data/me@work", {"kind": "embedded", "path": "/data/me@work"}, "embedded:///data/me@work"),
    ("embedded://data/x", {"kind": "embedded", "path": "data/x"}, "embedded://data/x"),
]


def test_a_url_is_read(subtests: pytest.Subtests) -> None:
    for url, fields, shown in ADDRESSES:
        with subtests.test(url=url, fields=fields, shown=shown):
            address = parse_url(url)

            assert address == Address(**{"kind": "standalone", **fields})
            assert str(address) == shown
            assert SECRET not in repr(address)


SCHEMES = (
    "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster://, "
    "embedded://"
)
KNOWN = f"known are {SCHEMES}"
NO_SCHEME = f"it must begin with one of {SCHEMES}, as in redis://localhost:6379/0"
PORT = "a host must be written host:port with a port from 1 to 65535"

REFUSED = [
    ("", NO_SCHEME),
    ("localhost:6379", NO_SCHEME),
    ("http://h", f"'http' is not a known scheme; {KNOWN}"),
    ("hunter2@h://x", NO_SCHEME),
    ("redis://", "it has no host"),
    ("redis://:6379", "it has no host"),
    ("redis://:hunter2", PORT),
    ("redis://user:hunter2/0", PORT),
    ("redis://h:99999", PORT),
    ("redis://[::1", PORT),
    ("redis://h:0", "the port of 'h' must be from 1 to 65535, got 0"),
    ("redis://h h", "a host must be written host or host:port, without blanks or control characters"),
    ("redis://h\n", "a host must be written host or host:port, without blanks or control characters"),
    ("redis://h#x", "a host must be written host or host:port, without blanks or control characters"),
    ("redis://h/x", "the database must be a number, got 'x'"),
    ("redis://h/-1", "the database must be a number, got '-1'"),
    ("redis://h/²", "the database must be a number, got '²'"),
    ("redis://h?db=", "the database must be a number, got ''"),
    ("redis://h1,h2", "several hosts need redis+sentinel:// or redis+cluster://"),
    ("redis://h?password=hunter2", "unknown option 'password'; known are db, password_file"),
    ("redis://h?ssl_ca_certs=/x", "unknown option 'ssl_ca_certs'; known are db, password_file"),
    (
        "rediss://h?ssl_cert_reqs=none",
        "unknown option 'ssl_cert_reqs'; known are db, password_file, ssl_ca_certs, ssl_certfile, ssl_keyfile",
    ),
    (
        "redis://:hun?ter2@h",
        "an @ follows a ?; write ? in a user or password as %3F, and @ in an option as %40",
    ),
    ("unix://", "unix:// needs an absolute path, as in unix:///run/redis.sock"),
    ("unix:///", "unix:// needs an absolute path, as in unix:///run/redis.sock"),
    ("unix://run/redis.sock", "unix:// needs an absolute path, as in unix:///run/redis.sock"),
    ("redis+sentinel://h", "redis+sentinel:// needs the primary's name, as in redis+sentinel://h1,h2/mymaster"),
    ("redis+sentinel://h,/m", "it has no host"),
    ("redis+cluster://h/1", "a cluster has no numbered databases, got '1'"),
    ("redis+cluster://h?db=1", "unknown option 'db'; known are password_file"),
    (
        "redis://user:hunter2@h?password_file=/x",
        "it has both a password and password_file; remove one of them",
    ),
    (
        "redis+sentinel://h/m?sentinel_password=hunter2&sentinel_password_file=/x",
        "it has both a password and sentinel_password_file; remove one of them",
    ),
    ("redis://h?password_file=", "password_file must be the path of a file"),
    ("redis://h?password_file=%00", "password_file must be the path of a file"),
    ("redis://h?sentinel_password_file=/x", "unknown option 'sentinel_password_file'; known are db, password_file"),
    ("embedded://x?db=1", "unknown option 'db'; embedded:// takes none"),
]


def test_a_url_is_refused(subtests: pytest.Subtests) -> None:
    for url, problem in REFUSED:
        with subtests.test(url=url, problem=problem):
            with pytest.raises(ConfigurationError) as refused:
                parse_url(url)

            assert str(refused.value) == f"cannot use the broker URL: {problem}"
            assert SECRET not in str(refused.value)


def test_a_database_of_many_digits_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the database must be a number"):
        parse_url(f"redis://h/{'1' * 5000}")


SCHEMES = st.sampled_from([url.partition("://")[0] for url, _, _ in ADDRESSES])
PARTS = st.lists(
    st.one_of(st.sampled_from([*list(":/@?#[],&=%\\"), "db=", "h", "6379", "%40", "//"]), st.text(max_size=4)),
    max_size=14,
).map("".join)


@given(scheme=SCHEMES, rest=PARTS)
@example(scheme="redis", rest="[v1.x]")
@example(scheme="redis", rest="[")
@example(scheme="redis", rest="h:\u0661")
@example(scheme="redis", rest="\u2100")
def test_any_text_is_parsed_as_an_address_or_refused(scheme: str, rest: str) -> None:
    try:
        address = parse_url(f"{scheme}://{rest}")
    except ConfigurationError:
        return

    assert isinstance(address, Address)
    assert all(host and 0 < port < 65536 for host, port in address.hosts)
    str(address)


AS_AN_ADDRESS = re.compile(r"(@|\d*[/,])[^@]*$")
"""Text after `user:` that looks like the end of a host or port, without an @host after it."""


@given(
    scheme=SCHEMES.filter(lambda scheme: scheme != "embedded"),
    user=st.sampled_from(["", "user"]),
    secret=st.text("0123456789abcdefSECRET:/@[]%,;!'\"#\\", min_size=8, max_size=20),
    tail=st.sampled_from(["@h", "@h/0", "@h/m", "@h:6379", "@/run/x", "", "/0", "@", "@h:x", "@h?x=1"]),
)
@example(scheme="redis+sentinel", user="user", secret="10000/00", tail="")
@example(scheme="redis+sentinel", user="user", secret="10000/00", tail="@h/m")
@example(scheme="redis+sentinel", user="user", secret="/abcdefg", tail="")
@example(scheme="redis+cluster", user="user", secret="1,abcdef", tail="")
@example(scheme="redis", user="user", secret="65000/12", tail="")
@example(scheme="redis", user="", secret="@abcdefg", tail="/0")
def test_no_password_is_ever_shown(scheme: str, user: str, secret: str, tail: str) -> None:
    """This holds for a valid URL, for a badly encoded password, and for a URL without a host."""
    url = f"{scheme}://{user}:{secret}{tail}"
    try:
        address = parse_url(url)
        if "@" not in tail and AS_AN_ADDRESS.match(secret):
            assert not address.password
            return
        shown = f"{address!s} {Endpoint(url, embedded_folder=Path('x'))!r}"
    except ConfigurationError as error:
        shown = f"{error} {error!r} {error.__cause__} {error.__context__ if not error.__suppress_context__ else ''}"

    assert secret not in shown


def test_an_endpoint_shows_its_address() -> None:
    endpoint = Endpoint("redis://user:hunter2@h:7/1", embedded_folder=Path("x"))

    assert repr(endpoint) == "Endpoint('redis://user:***@h:7/1')"
    assert endpoint.server == ("h", 7)
    assert not endpoint.is_cluster


def test_an_address_survives_pickling() -> None:
    address = parse_url("redis://user:hunter2@h:7/1")

    assert pickle.loads(pickle.dumps(address)) == address
