"""Deprecated names warn with what to use instead, and the release that removes them."""

import warnings

import pytest

from taskq_core.warnings import TaskQDeprecationWarning, TaskQWarning, warn_deprecated


def test_a_deprecation_names_the_replacement_and_the_calling_line() -> None:
    with pytest.warns(TaskQDeprecationWarning, match=r"^`a` is removed in taskq 0\.3; use `b`$") as said:
        warn_deprecated("`a`", removed_in="0.3", instead="`b`")

    assert [each.filename for each in said if each.category is TaskQDeprecationWarning] == [__file__]
    assert issubclass(TaskQDeprecationWarning, DeprecationWarning)
    assert issubclass(TaskQDeprecationWarning, TaskQWarning)


def test_a_deprecation_can_be_turned_into_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        with pytest.raises(TaskQDeprecationWarning):
            warn_deprecated("`a`", removed_in="0.3", instead="`b`")
