"""The public API changes only on purpose."""

import difflib

import taskq_core
from scripts import public_api


def test_the_public_api_matches_the_golden_files() -> None:
    promised = public_api.FILE.read_text().splitlines()
    found = public_api.text().splitlines()

    changes = list(difflib.unified_diff(promised, found, "promised", "found", lineterm="", n=2))

    assert not changes, (
        "the public API has changed:\n"
        + "\n".join(changes)
        + "\nIf that is meant, run: python scripts/public_api.py --write (and tell users in CHANGELOG.md)"
    )


def test_all_is_sorted_and_complete() -> None:
    """What `taskq_core` imports from its own modules is what it promises."""
    imported = {
        name
        for name, value in vars(taskq_core).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("taskq_core.")
    }

    assert list(taskq_core.__all__) == sorted(taskq_core.__all__)
    assert imported == set(taskq_core.__all__)
