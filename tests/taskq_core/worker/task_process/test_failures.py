"""Test exceptions that a function raised in another process, as the worker receives them."""

from datetime import timedelta

import pytest

from taskq_core import Retry, SkipRetry, StepError
from taskq_core.handles.attempts import traceback_text
from taskq_core.worker.task_process.failures import decode_failure, encode_failure
from tests.rows import rows
from tests.taskq_core.test_errors import ARGUMENTS, CLASSES


class Sealed(Exception):  # noqa: N818 - it stands in for a foreign exception
    """Refuses to have subclasses."""

    def __init_subclass__(cls) -> None:
        raise TypeError("sealed")


def back(error: BaseException) -> BaseException:
    return decode_failure(encode_failure(error))


def test_an_exception_keeps_its_class_and_text(subtests: pytest.Subtests) -> None:
    for error in [
        ValueError("no"),
        KeyError("k"),
        FileNotFoundError(2, "not there", "/x"),
        SystemExit(3),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        MemoryError(),
    ]:
        with subtests.test(error=error):
            again = back(error)

            assert isinstance(again, type(error))
            assert (type(again).__name__, str(again)) == (type(error).__name__, str(error))


def test_an_exception_that_cannot_be_rebuilt_keeps_its_class_name_and_text(subtests: pytest.Subtests) -> None:
    for error in [Sealed("no"), ExceptionGroup("two", [ValueError(1)])]:
        with subtests.test(error=error):
            again = back(error)

            assert (type(again).__name__, str(again)) == (type(error).__name__, str(error))


def test_an_unknown_exception_class_is_not_imported() -> None:
    local = type("OddError", (Exception,), {"__module__": "no.such.module"})

    again = back(local("a text"))

    assert (type(again).__module__, type(again).__name__, str(again)) == ("no.such.module", "OddError", "a text")


class ManyError(ExceptionGroup[Exception]):
    """An exception group of a custom class."""


def test_an_exception_group_keeps_its_class_and_members() -> None:
    """Members survive, in nested groups too. The class is restored, and the traceback appears once."""
    inner = ManyError("inner", [KeyError("k"), OSError(2, "gone")])
    try:
        raise ExceptionGroup("outer", [ValueError("v"), inner])
    except ExceptionGroup as error:
        again = back(error)

    assert isinstance(again, ExceptionGroup)
    assert (again.message, str(again)) == ("outer", "outer (2 sub-exceptions)")
    assert [type(each).__name__ for each in again.exceptions] == ["ValueError", "ManyError"]
    assert isinstance(again.exceptions[1], ManyError)
    assert str(again.exceptions[1].exceptions[1]) == "[Errno 2] gone"
    lost, rest = again.split(OSError)
    assert lost is not None
    assert rest is not None
    assert traceback_text(again).count("In its own process") == 1


def test_a_base_exception_group_keeps_its_class_and_members() -> None:
    again = back(BaseExceptionGroup("two", [SystemExit(3), ValueError("v")]))

    assert isinstance(again, BaseExceptionGroup)
    assert [type(each).__name__ for each in again.exceptions] == ["SystemExit", "ValueError"]


def test_a_large_exception_group_keeps_some_members() -> None:
    again = back(ExceptionGroup("many", [ValueError(str(number)) for number in range(1000)]))

    assert isinstance(again, ExceptionGroup)
    assert 1 < len(again.exceptions) < 100
    assert str(again) == "many (1000 sub-exceptions)"


def test_the_traceback_of_an_exception_becomes_a_note() -> None:
    try:
        raise ValueError("here")
    except ValueError as error:
        again = back(error)

    assert 'raise ValueError("here")' in again.__notes__[0]


def test_a_bounded_number_of_causes_is_kept() -> None:
    error: Exception = ValueError("0")
    for number in range(1, 9):
        above = ValueError(str(number))
        above.__cause__ = error
        error = above

    texts: list[str] = []
    again: BaseException | None = back(error)
    while again is not None:
        texts.append(str(again))
        again = again.__cause__

    assert texts == ["8", "7", "6", "5"]


def test_causes_are_shown_as_in_the_task_process() -> None:
    """A cause hidden with `from None` may be secret, so it is not shown. It still counts, as behind a `Retry`."""

    def raised(how: str) -> Exception:
        try:
            try:
                raise KeyError("secret")
            except KeyError as error:
                if how == "from it":
                    raise ValueError("no") from error
                if how == "from None":
                    raise ValueError("no") from None
                raise ValueError("no")  # noqa: B904 - its context is what this is about
        except ValueError as error:
            return error

    for how in ("from it", "from None", "by itself"):
        error, again = raised(how), back(raised(how))
        assert (str(again.__cause__), again.__suppress_context__) == (str(error.__cause__), error.__suppress_context__)
        assert ("secret" in traceback_text(again)) == ("secret" in traceback_text(error)) == (how != "from None")
        assert isinstance(again.__cause__ or again.__context__, KeyError), how


@rows("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_of_taskq_keeps_its_class_text_and_attributes(kind: type[BaseException]) -> None:
    error = kind(*ARGUMENTS.get(kind.__name__, ("a text",)))
    error.__cause__ = ValueError("a cause")

    again = back(error)

    assert type(again) is kind
    assert (str(again), again.args) == (str(error), error.args)
    assert {**vars(again), "__notes__": []} == {**vars(error), "__notes__": []}


@rows("after", [None, 5, 7.5, timedelta(days=2, microseconds=1), timedelta.max])
def test_a_request_to_run_again_keeps_its_delay(after: float | timedelta | None) -> None:
    assert vars(back(Retry(after))) == {"after": after}


def test_a_final_error_stays_final() -> None:
    again = back(StepError("too large", is_final=True))

    assert isinstance(again, StepError)
    assert again.is_final


class OwnStepError(StepError):
    """An error of a project, which is derived from an error of taskq."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.seen = [self]


def test_an_error_derived_from_one_of_taskq_is_an_error_of_taskq() -> None:
    unknown = type("UnknownStepError", (SkipRetry,), {"__module__": "no.such.module"})

    derived, of_unknown_module = back(OwnStepError("pay")), back(unknown("enough"))

    assert isinstance(derived, OwnStepError)
    assert not derived.is_final
    assert isinstance(of_unknown_module, SkipRetry)
    assert of_unknown_module.reason == "enough"


def test_an_exception_without_readable_text_is_reported() -> None:
    class BrokenError(ValueError):
        def __str__(self) -> str:
            raise RuntimeError

    assert str(back(BrokenError())) == "(its text cannot be read)"
