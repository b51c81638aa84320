"""Test the output of `taskq acl`. tests/topologies/test_acl.py tests the effect of the rules."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.taskq_core.cli.conftest import Run

RunJson = Callable[..., Any]
DIGEST = hashlib.sha256(b"secret").hexdigest()


def test_without_a_password_the_printed_line_has_a_placeholder(run: Run) -> None:
    told = run("acl", "producer", "--queue", "mail")

    assert told.stdout.startswith("ACL SETUSER producer reset resetchannels on #SHA-256-OF-THE-PASSWORD +")
    assert told.stdout.count("\n") == 1
    assert "--password-env" in told.stderr


def test_a_password_is_printed_as_its_hash(run: Run, run_json: RunJson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "secret")
    document = run_json("acl", "viewer", "--user", "eva", "--password-env", "MAIL_PASSWORD", "--db", "3")
    line = run("acl", "viewer", "--user", "eva", "--password-hash", DIGEST, "--db", "3").stdout

    assert line == f"{document['command']}\n"
    assert (document["user"], document["role"]) == ("eva", "viewer")
    assert f"#{DIGEST}" in document["rules"]
    assert "+select" in document["rules"]
    assert "secret" not in line


def test_key_patterns_match_only_their_own_names(run: Run) -> None:
    line = run("acl", "producer", "--queue", "a*[b]?", "--prefix", "p").stdout

    assert r"p:{a\*\[b]\?}:pending" in line
    assert r"p:taskq:{a\*\[b]\?}:wake" in line
    assert "asynq" not in line


def test_roles_of_other_redis_versions_and_combined_roles_work(run: Run) -> None:
    old = run("acl", "producer", "--queue", "mail", "--redis", "6.2").stdout

    assert not {"(", "%"} & set(old)
    assert "+waitaof" not in run("acl", "producer", "--redis", "7.0").stdout
    assert run("acl", "scheduler", "--user", "w", "--keep").stdout.startswith("ACL SETUSER w +asking")


def test_invalid_options_are_refused(run: Run, subtests: pytest.Subtests) -> None:
    for words, problem in [
        (("owner",), "'owner' is not one of 'producer'"),
        (("producer", "--queue", "a b"), "cannot name the queue 'a b'"),
        (("producer", "--user", "a b"), "got 'a b'"),
        (("viewer", "--with-lists"), "a viewer needs no such option"),
        (("viewer", "--password-hash", "ABC"), "64 hex digits"),
        (("viewer", "--password-env", "NOT_SET_ANYWHERE"), "'NOT_SET_ANYWHERE' is not set or empty"),
        (("viewer", "--password-env", "A", "--password-hash", DIGEST), "give either --password-env"),
        (("viewer", "--keep", "--password-hash", DIGEST), "remove the option that sets a password"),
    ]:
        with subtests.test(words=words, problem=problem):
            assert problem in run("acl", *words, status=1 if "--queue" in words else 2).stderr
