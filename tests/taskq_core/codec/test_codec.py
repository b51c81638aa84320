"""Test payloads: values survive a round trip, invalid values are refused, and errors never contain a value."""

import enum
import functools
import json
import pickle
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired, TypedDict, Unpack
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.codec import ArgumentsCodec, decode_result, encode_result
from taskq_core.errors import PayloadError, ResultValueError, TaskArgumentsError, TaskDefinitionError
from taskq_core.warnings import ArgumentTypeWarning
from tests.rows import rows

CANARY = "s3cr3t-canary"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Size(enum.StrEnum):
    BIG = "big"


@dataclass
class Point:
    x: int
    label: str = ""


@dataclass
class Checked:
    text: str

    def __post_init__(self) -> None:
        if self.text.startswith("s3"):
            raise ValueError(f"bad text {self.text}")


@dataclass(eq=False)
class Handleless:
    ratio: float | None = None
    children: list["Handleless"] = field(default_factory=list)


class Options(TypedDict):
    width: int
    height: NotRequired[int]


class Order(msgspec.Struct):
    number: int
    price: Decimal


class Customer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    id: UUID
    name: str = pydantic.Field(alias="fullName")
    since: datetime | None = None


class Ratio(pydantic.BaseModel):
    value: float | None


DAY = date(2030, 1, 31)
WHEN = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
ID = UUID("12345678-1234-5678-1234-567812345678")
CUSTOMER = Customer(id=ID, fullName="Ann", since=WHEN)


def codec_for(annotation: Any, **options: Any) -> ArgumentsCodec:
    def function(value):  # type: ignore[no-untyped-def] # annotated in the next line
        pass

    function.__annotations__ = {"value": annotation}
    return ArgumentsCodec(function, name="demo", **options)


def send_email(to: str, subject: str = "", *, copies: int = 1) -> None:
    pass


@pytest.fixture
def email() -> ArgumentsCodec:
    return ArgumentsCodec(send_email, name="email:deliver")


# --- round trips ---


@rows(
    ("annotation", "value", "json"),
    [
        (str, "Grüße\x00\n", '"Grüße\\u0000\\n"'),
        (int, -(2**70), str(-(2**70))),
        (float, 1.5, "1.5"),
        (bool, True, "true"),
        (None, None, "null"),
        (str | None, None, "null"),
        (datetime, WHEN, '"2026-03-01T12:30:15.123456Z"'),
        (datetime, datetime(2026, 3, 1, 12), '"2026-03-01T12:00:00"'),  # noqa: DTZ001 - naive on purpose
        (date, date(2026, 3, 1), '"2026-03-01"'),
        (timedelta, timedelta(minutes=1, milliseconds=5), '"PT60.005S"'),
        (UUID, ID, f'"{ID}"'),
        (Decimal, Decimal("10.10"), '"10.10"'),
        (bytes, b"\x00\xff", '"AP8="'),
        (Color, Color.RED, '"red"'),
        (Level, Level.LOW, "1"),
        (Size, Size.BIG, '"big"'),
        (Literal["a", "b"], "a", '"a"'),
        (Point, Point(1, "p"), '{"x":1,"label":"p"}'),
        (Options, {"width": 2}, '{"width":2}'),
        (Order, Order(7, Decimal("1.5")), '{"number":7,"price":"1.5"}'),
        (Customer, CUSTOMER, f'{{"fullName":"Ann","id":"{ID}","since":"2026-03-01T12:30:15.123456Z"}}'),
        (list[Customer], [CUSTOMER], None),
        (dict[str, Customer], {"a": CUSTOMER}, None),
        (Customer | None, CUSTOMER, None),
        (Customer | None, None, "null"),
        (list[Customer | None], [None, CUSTOMER], None),
        (list[Point], [Point(1)], '[{"x":1,"label":""}]'),
        (set[str], {"b", "a"}, '["a","b"]'),
        (frozenset[Color], frozenset(Color), '["blue","red"]'),
        (set[int | str], {2, "a", 1}, '["a",1,2]'),
        (tuple[int, str], (1, "a"), '[1,"a"]'),
        (tuple[int, ...], (1, 2), "[1,2]"),
        (Sequence[int], [1], "[1]"),
        (Mapping[str, object], {"b": [1], "a": None}, '{"a":null,"b":[1]}'),
        (dict[int, str], {2: "b", 1: "a"}, '{"1":"a","2":"b"}'),
        (dict[UUID, int], {ID: 1}, f'{{"{ID}":1}}'),
        (Annotated[int, msgspec.Meta(ge=0)], 3, "3"),
        (Any, {"a": [1, 2.5, None, True, "x"]}, '{"a":[1,2.5,null,true,"x"]}'),
        (object, [1, {"a": "b"}], '[1,{"a":"b"}]'),
    ],
)
def test_a_value_survives_encoding_and_decoding(annotation: Any, value: object, json: str | None) -> None:
    """Every supported type has one JSON form and is read back equal."""
    codec = codec_for(annotation)

    payload = codec.encode((value,), {})

    assert codec.decode(payload) == {"value": value}
    assert type(codec.decode(payload)["value"]) is type(value)
    if json is not None:
        assert payload.decode() == f'{{"value":{json}}}'


@rows(
    ("annotation", "given", "arrives"),
    [
        (float, 1, 1.0),
        (Decimal, 2, Decimal(2)),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[int], [1, 2], {1, 2}),
        (Point, {"x": 1}, Point(1)),
        (Order, {"number": 1, "price": Decimal(2)}, Order(1, Decimal(2))),
        (bytes, bytearray(b"a"), b"a"),
        (Size, "big", Size.BIG),
        (Any, (1, 2), [1, 2]),
        (datetime, WHEN.astimezone(ZoneInfo("Europe/Berlin")), WHEN),
    ],
)
def test_a_value_that_converts_without_loss_is_accepted(annotation: Any, given: object, arrives: object) -> None:
    """Neighbouring types pass and arrive as annotated."""
    codec = codec_for(annotation)

    assert codec.decode(codec.encode((given,), {})) == {"value": arrives}


def test_a_record_without_equality_is_accepted() -> None:
    """A dataclass that compares by identity is checked on the slow road."""
    codec = codec_for(Handleless)

    read = codec.decode(codec.encode((Handleless(1.5, [Handleless(2.5)]),), {}))["value"]

    assert isinstance(read, Handleless)
    assert (read.ratio, read.children[0].ratio) == (1.5, 2.5)


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    number=st.integers(-(10**30), 10**30),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    raw=st.binary(),
    when=st.datetimes(timezones=st.just(UTC)),
    span=st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    points=st.lists(st.builds(Point, st.integers(-9, 9), st.text(st.characters(exclude_categories=["Cs"])))),
    ids=st.sets(st.uuids()),
    colors=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(Color)),
    order=st.none() | st.builds(Order, st.integers(0, 9), st.decimals(allow_nan=False, allow_infinity=False)),
)
def test_arguments_survive_encoding_and_decoding(**arguments: Any) -> None:
    """Decoding undoes encoding for a mixed signature."""
    codec = ArgumentsCodec(mixed, name="mixed")

    assert codec.decode(codec.encode((), arguments)) == arguments


def mixed(
    text: str,
    number: int,
    ratio: float,
    raw: bytes,
    when: datetime,
    span: timedelta,
    points: list[Point],
    ids: set[UUID],
    *,
    colors: dict[str, Color],
    order: Order | None = None,
) -> None:
    pass


# --- the shape of the payload ---


def test_an_omitted_argument_is_not_in_the_payload(email: ArgumentsCodec) -> None:
    """The default of the consumer applies, even if it differs from the producer's."""
    assert email.encode(("a@b.c",), {}) == b'{"to":"a@b.c"}'
    assert email.encode(("a@b.c",), {"subject": ""}) == b'{"to":"a@b.c","subject":""}'
    assert email.decode(b'{"to":"a@b.c"}') == {"to": "a@b.c"}


def test_equal_calls_make_equal_bytes(email: ArgumentsCodec) -> None:
    """Fields follow the order of the signature, however they were passed."""
    first = email.encode(("a",), {"copies": 2, "subject": "s"})

    assert first == email.encode((), {"subject": "s", "copies": 2, "to": "a"})
    assert first == b'{"to":"a","subject":"s","copies":2}'


def test_equal_mappings_make_equal_bytes() -> None:
    """The order in which a dict was filled does not show."""
    codec = codec_for(dict[str, int])

    assert codec.encode(({"b": 1, "a": 2},), {}) == codec.encode(({"a": 2, "b": 1},), {})


def test_injected_parameters_are_not_in_the_payload() -> None:
    """The worker fills them; a call may not, and a payload's field of that name is unknown."""

    def function(context: object, to: str, *, other: object) -> None:
        pass

    codec = ArgumentsCodec(function, name="demo", injected=frozenset({"context", "other"}))

    assert codec.parameters == ("to",)
    assert codec.encode(("a",), {}) == b'{"to":"a"}'
    assert codec.decode_counting(b'{"to":"a","context":1}') == ({"to": "a"}, 1)
    with pytest.raises(TaskArgumentsError, match=r"got 'context', which the worker injects"):
        codec.encode(("a",), {"context": 1})


def test_an_empty_payload_is_an_empty_object() -> None:
    """Go writes no bytes for nil."""
    codec = ArgumentsCodec(lambda value=1: None, name="demo")

    assert codec.decode(b"") == {}
    assert codec.encode((), {}) == b"{}"


def test_payloads_written_by_go_are_decoded(email: ArgumentsCodec) -> None:
    """The payload has spaces, fields in any order, an integer for a float, nanoseconds and a UTC offset."""

    def function(at: datetime, ratio: float) -> None:
        pass

    codec = ArgumentsCodec(function, name="demo")

    read = codec.decode(b' {"ratio": 2, "at": "2026-03-01T13:30:15.123456789+01:00"}\n')

    assert read == {"at": WHEN + timedelta(microseconds=1), "ratio": 2.0}


def test_unknown_fields_are_ignored_and_counted(email: ArgumentsCodec) -> None:
    """A newer producer does not stop an older consumer."""
    assert email.decode_counting(b'{"to":"a","new":1,"newer":{"x":[]}}') == ({"to": "a"}, 2)
    assert email.decode_counting(b'{"to":"a"}') == ({"to": "a"}, 0)


def test_strict_refuses_unknown_fields() -> None:
    """The error names the field but not its value."""
    codec = ArgumentsCodec(send_email, name="email:deliver", strict=True)

    assert codec.decode(b'{"to":"a"}') == {"to": "a"}
    with pytest.raises(PayloadError) as caught:
        codec.decode(b'{"to":"a","new":"' + CANARY.encode() + b'"}')
    assert str(caught.value) == "payload of task 'email:deliver': unknown field 'new'"


# --- calls that do not fit ---


@rows(
    ("args", "kwargs", "message"),
    [
        ((), {}, "task 'email:deliver', parameter 'to': missing 1 required positional argument: 'to'"),
        (
            ("a", "b", 3),
            {},
            "task 'email:deliver': takes from 1 to 2 positional arguments but 3 were given",
        ),
        (("a",), {"to": "b"}, "task 'email:deliver', parameter 'to': got multiple values for argument 'to'"),
        (
            ("a",),
            {"subjct": "b"},
            "task 'email:deliver': got an unexpected keyword argument 'subjct'; did you mean 'subject'?",
        ),
        (("a",), {"zzz": "b"}, "task 'email:deliver': got an unexpected keyword argument 'zzz'"),
        ((1,), {}, "task 'email:deliver', parameter 'to': expected str, got int (position 1)"),
        (("a", None), {}, "task 'email:deliver', parameter 'subject': expected str, got NoneType (position 2)"),
        (("a",), {"copies": "2"}, "task 'email:deliver', parameter 'copies': expected int, got str"),
        (("a",), {"copies": True}, "task 'email:deliver', parameter 'copies': expected int, got bool"),
    ],
)
def test_a_call_with_invalid_arguments_is_refused(
    email: ArgumentsCodec, args: tuple[object, ...], kwargs: dict[str, object], message: str
) -> None:
    """The refusal names task, parameter, position and types."""
    with pytest.raises(TaskArgumentsError) as caught:
        email.encode(args, kwargs)

    assert str(caught.value) == message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_several_missing_arguments_are_listed() -> None:
    """The error lists missing arguments in the same words as Python."""

    def function(a: int, b: int, c: int, *, d: int, e: int) -> None:
        pass

    codec = ArgumentsCodec(function, name="demo")

    with pytest.raises(TaskArgumentsError) as positional:
        codec.encode((), {})
    with pytest.raises(TaskArgumentsError) as keyword:
        codec.encode((1, 2, 3), {})

    assert str(positional.value) == "task 'demo': missing 3 required positional arguments: 'a', 'b', and 'c'"
    assert str(keyword.value) == "task 'demo': missing 2 required keyword-only arguments: 'd' and 'e'"


class Opaque:
    def __repr__(self) -> str:
        return CANARY


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@rows(
    ("annotation", "value", "problem"),
    [
        (UUID, str(ID), "expected UUID, got str"),
        (list[UUID], [ID, str(ID)], "expected UUID, got str at [1]"),
        (dict[str, UUID], {CANARY: str(ID)}, "expected UUID, got str at [...]"),
        (datetime, "2026-03-01T00:00:00Z", "expected datetime, got str"),
        (bytes, "YWJj", "expected bytes, got str"),
        (str, b"abc", "expected str, got bytes"),
        (str, ID, "expected str, got UUID"),
        (str, WHEN, "expected str, got datetime"),
        (list[str], [b"abc"], "expected str, got bytes at [0]"),
        (Color, "red", "expected Color, got str"),
        (Color, CANARY, "not an allowed value of Color"),
        (Literal["a"], CANARY, "not an allowed value of Literal['a']"),
        (Decimal, 1.1, "expected Decimal, got float"),
        (float, Decimal("1.1"), "expected float, got Decimal"),
        (int, 1.0, "expected int, got float"),
        (int | None, CANARY, "expected int | None, got str"),
        (list[int], CANARY, "expected list[int], got str"),
        (dict[str, int], {CANARY: CANARY}, "expected int, got str at [...]"),
        (Point, Order(1, Decimal(1)), "expected Point, got Order"),
        (Point, {"label": "a"}, "object missing required field x"),
        (Point, Point(CANARY), "expected int, got str at .x"),  # type: ignore[arg-type] # wrong on purpose
        (tuple[int, str], (1,), "expected array of length 2, got 1"),
        (Annotated[int, msgspec.Meta(ge=3)], 1, "expected int >= 3"),
        (Customer, {"id": CANARY}, "rejected by Customer (id: uuid_parsing, fullName: missing)"),
        (Customer, Point(1), "expected Customer, got Point"),
        (Checked, {"text": CANARY}, "rejected by the validation of its class (ValueError)"),
        (float, float("nan"), "NaN and infinity have no JSON form"),
        (float | None, float("inf"), "NaN and infinity have no JSON form"),
        (Any, {"a": [float("-inf")]}, "NaN and infinity have no JSON form"),
        (Handleless, Handleless(float("nan")), "NaN and infinity have no JSON form"),
        (Ratio, Ratio(value=float("nan")), "NaN and infinity have no JSON form"),
        pytest.param(int, 10**5000, "int cannot be written as JSON (ValueError)", id="huge int"),
        pytest.param(float, 10**400, "number out of range", id="huge int for a float"),
        (str, CANARY + "\ud800", "text with a lone surrogate has no UTF-8 form"),
        (Any, {"\ud800" + CANARY: 1}, "text with a lone surrogate has no UTF-8 form"),
        (Any, CYCLE, "is nested too deeply or contains itself"),
        (Any, Opaque(), "Opaque has no JSON form"),
        (Any, [Opaque()], "Opaque has no JSON form"),
        (Any, 1j, "complex has no JSON form"),
    ],
)
def test_a_wrong_value_is_refused_before_it_is_written(annotation: Any, value: object, problem: str) -> None:
    """Nothing the task could not read is ever encoded, and the error is silent about the value."""
    with pytest.raises(TaskArgumentsError) as caught:
        codec_for(annotation).encode((value,), {})

    assert caught.value.problem == f"{problem} (position 1)"
    assert_silent(caught.value)


@pytest.mark.parametrize("value", [None, 3])
def test_a_parameter_with_the_default_none_accepts_none(value: int | None) -> None:
    """`x: int = None` is read as optional."""

    def function(x: int = None) -> None:  # type: ignore[assignment] # noqa: RUF013 - the old spelling
        pass

    codec = ArgumentsCodec(function, name="demo")

    assert codec.decode(codec.encode((value,), {})) == {"x": value}


# --- payloads that do not fit ---


@rows(
    ("payload", "message"),
    [
        (b"", "payload of parameter 'to' of task 'email:deliver': missing in the payload"),
        (b"{}", "payload of parameter 'to' of task 'email:deliver': missing in the payload"),
        (
            b'{"receiver":"s3cr3t-canary"}',
            "payload of parameter 'to' of task 'email:deliver': missing in the payload; the payload has "
            "the field 'receiver', which is not a parameter",
        ),
        (b"{} s3cr3t-canary", "payload of task 'email:deliver': not valid JSON"),
        (b'{"to":1}', "payload of parameter 'to' of task 'email:deliver': expected str, got int"),
        (b'{"to":null}', "payload of parameter 'to' of task 'email:deliver': expected str, got null"),
        (b"[]", "payload of task 'email:deliver': expected a JSON object, got array"),
        (b"null", "payload of task 'email:deliver': expected a JSON object, got null"),
        (b'"s3cr3t-canary"', "payload of task 'email:deliver': expected a JSON object, got str"),
        (b"s3cr3t-canary", "payload of task 'email:deliver': not valid JSON"),
        (b'{"to":"s3cr3t-canary', "payload of task 'email:deliver': not valid JSON"),
        (b'{"to":"s3cr3t-canary\xff"}', "payload of task 'email:deliver': not valid UTF-8"),
        (b'{"to":"a","s3cr3t-canary\xff":1}', "payload of task 'email:deliver': not valid UTF-8"),
        (b'{"to":"a","x":' + b"[" * 100_000, "payload of task 'email:deliver': nested too deeply"),
    ],
)
def test_an_invalid_payload_is_refused(email: ArgumentsCodec, payload: bytes, message: str) -> None:
    """The refusal names the parameter and the types."""
    with pytest.raises(PayloadError) as caught:
        email.decode(payload)

    assert str(caught.value) == message
    assert_silent(caught.value)


def test_the_path_to_a_deeply_nested_problem_is_truncated() -> None:
    def function(x: Any) -> None:
        pass

    deep = "[" * 900 + "1e999" + "]" * 900

    with pytest.raises(PayloadError) as caught:
        ArgumentsCodec(function, name="demo").decode(b'{"x":' + deep.encode() + b"}")

    assert str(caught.value).startswith("payload of parameter 'x' of task 'demo': ")
    assert str(caught.value).endswith("[0]...")
    assert len(str(caught.value)) < 300


@rows(
    ("annotation", "json", "problem"),
    [
        (UUID, '"s3cr3t-canary"', "invalid UUID"),
        (datetime, '"s3cr3t-canary"', "invalid RFC3339 encoded datetime"),
        (date, '"s3cr3t-canary"', "invalid RFC3339 encoded date"),
        (timedelta, '"s3cr3t-canary"', "invalid ISO8601 duration"),
        (Decimal, '"s3cr3t-canary"', "invalid decimal string"),
        (bytes, '"s3cr3t-canary"', "invalid base64 encoded string"),
        (Color, '"s3cr3t-canary"', "not an allowed value of Color"),
        (list[Point], '[{"x":1},{"x":"s3cr3t-canary"}]', "expected int, got str at [1].x"),
        (dict[str, int], '{"s3cr3t-canary":"s3cr3t-canary"}', "expected int, got str at [...]"),
        (dict[int, int], '{"s3cr3t-canary":1}', "expected int, got str at [key]"),
        (Customer, '{"id":"s3cr3t-canary"}', "rejected by Customer (id: uuid_parsing, fullName: missing)"),
        (Customer, '"s3cr3t-canary"', "rejected by Customer (ValidationError)"),
        (
            list[Customer],
            '[{"id":"s3cr3t-canary"}]',
            "rejected by Customer (id: uuid_parsing, fullName: missing) at [0]",
        ),
        (Checked, '{"text":"s3cr3t-canary"}', "rejected by the validation of its class (ValueError)"),
        (float, "1e999", "number out of range"),
    ],
)
def test_a_wrong_field_is_refused(annotation: Any, json: str, problem: str) -> None:
    """Errors of the types themselves hold the value; ours do not."""
    with pytest.raises(PayloadError) as caught:
        codec_for(annotation).decode(f'{{"value":{json}}}'.encode())

    assert (caught.value.parameter, caught.value.problem) == ("value", problem)
    assert_silent(caught.value)


@given(st.binary() | st.from_regex(rb'\{("(to|subject|x)":(1|"a"|\[\]|null|\{\}),?)*\}?', fullmatch=True))
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    """No input raises anything but PayloadError."""
    codec = ArgumentsCodec(send_email, name="email:deliver")

    try:
        codec.decode(payload)
    except PayloadError as exc:
        assert exc.task == "email:deliver"  # noqa: PT017 - either outcome is right


def assert_silent(error: BaseException) -> None:
    """No text that a log, a tracker or a user could show holds the canary."""
    shown = [str(error), repr(error), repr(error.args), repr(vars(error))]
    shown += traceback.TracebackException.from_exception(error).format_exception_only()
    chained = error.__cause__ or error.__context__
    assert chained is None, "a chained error could hold the value"
    assert CANARY not in "".join(shown)


# --- definitions ---


def test_positional_only_parameters_are_refused() -> None:
    """A payload passes by name."""

    def function(a: int, /) -> None:
        pass

    with pytest.raises(TaskDefinitionError) as caught:
        ArgumentsCodec(function, name="demo")
    assert str(caught.value) == (
        "task 'demo', parameter 'a': a positional-only parameter is not possible, because the payload passes arguments "
        "by name; remove the '/' from the signature"
    )


class Extra(TypedDict, total=False):
    due: date


def gather(first: int, *rest: date, by: str = "", **extra: object) -> None: ...
def unpacked(**extra: Unpack[Extra]) -> None: ...


@rows(
    ("function", "args", "kwargs", "payload", "call"),
    [
        (gather, (1,), {}, '{"first":1}', ([], {"first": 1})),
        (
            gather,
            (1, DAY),
            {"by": "me", "rest": 2, "x": [3]},
            f'{{"first":1,"rest":["{DAY}"],"by":"me","extra":{{"rest":2,"x":[3]}}}}',
            ([1, DAY], {"by": "me", "rest": 2, "x": [3]}),
        ),
        (unpacked, (), {"due": DAY}, f'{{"extra":{{"due":"{DAY}"}}}}', ([], {"due": DAY})),
    ],
)
def test_variadic_parameters_are_stored_as_list_and_object(
    function: Any, args: Any, kwargs: Any, payload: str, call: Any
) -> None:
    codec = ArgumentsCodec(function, name="demo")

    encoded = codec.encode(args, kwargs)

    assert json.loads(encoded) == json.loads(payload)
    assert codec.split(codec.decode(encoded)) == call


@rows(
    ("function", "args", "kwargs", "problem"),
    [
        (gather, (), {}, "missing 1 required positional argument: 'first'"),
        (gather, (1, "2030-01-01"), {}, "expected date, got str"),
        (gather, (1,), {"first": 2}, "got multiple values for argument 'first'"),
        (unpacked, (), {"due": "2030-01-01"}, "expected date, got str"),
        (unpacked, (1,), {}, "takes 0 positional arguments but 1 was given"),
        (lambda *a: None, (), {"a": [1]}, "got an unexpected keyword argument 'a'"),
    ],
)
def test_invalid_variadic_arguments_are_refused(function: Any, args: Any, kwargs: Any, problem: str) -> None:
    with pytest.raises(TaskArgumentsError, match=re.escape(problem)):
        ArgumentsCodec(function, name="demo").encode(args, kwargs)


@rows(
    ("value", "loss"),
    [
        (WHEN, "a datetime arrives as str"),
        (ID, "a UUID arrives as str"),
        ({"price": [Decimal(1)]}, "a Decimal at [...][0] arrives as str"),
        (Point(1), "a Point arrives as dict"),
        (b"a", "a bytes arrives as str"),
    ],
)
def test_a_type_that_json_does_not_keep_causes_one_warning(value: object, loss: str) -> None:
    def function(value, other=None):  # type: ignore[no-untyped-def]  # the point of the test
        pass

    codec = ArgumentsCodec(function, name="demo")

    with pytest.warns(ArgumentTypeWarning, match=re.escape(f"task 'demo', parameter 'value': {loss}")) as said:
        codec.encode((value,), {})

    assert said[0].filename == __file__
    codec.encode((value, value), {})


@rows(
    ("annotation", "message"),
    [
        (Opaque, "the annotation Opaque is not supported: type Opaque has no JSON form"),
        (list[Opaque] | None, "the annotation list[Opaque] | None is not supported: type Opaque has no JSON form"),
        (Callable[[], int], "the annotation Callable[[], int] is not supported: type Callable has no JSON form"),
    ],
)
def test_an_annotation_without_json_form_is_refused(annotation: Any, message: str) -> None:
    """The refusal names parameter and type."""
    with pytest.raises(TaskDefinitionError) as caught:
        codec_for(annotation)
    assert str(caught.value) == f"task 'demo', parameter 'value': {message}"


def test_an_ambiguous_union_is_refused() -> None:
    """The JSON forms of the members are indistinguishable."""
    with pytest.raises(TaskDefinitionError, match=r"parameter 'value': the annotation Point \| Order is not supported"):
        codec_for(Point | Order)


def test_a_string_annotation_is_resolved_in_the_module() -> None:
    """`from __future__ import annotations` turns annotations into strings."""
    assert codec_for("Point | None").decode(b'{"value":{"x":1}}') == {"value": Point(1)}


def test_a_string_annotation_is_resolved_in_the_enclosing_function() -> None:
    """Names of enclosing bodies are found although the function does not use them itself."""

    class Outer(msgspec.Struct):
        a: int

    def define() -> tuple[ArgumentsCodec, type]:
        class Inner(msgspec.Struct):
            b: int

        def function(outer: "Outer", inner: "list[Inner]") -> None:
            pass

        return ArgumentsCodec(function, name="demo"), Inner

    codec, inner = define()

    assert codec.decode(b'{"outer":{"a":1},"inner":[{"b":2}]}') == {"outer": Outer(1), "inner": [inner(2)]}


def test_an_unresolvable_name_is_reported() -> None:
    """This includes a name that is imported for type checkers only."""
    with pytest.raises(TaskDefinitionError) as caught:
        codec_for("list[Nowhere]")
    assert str(caught.value) == (
        "task 'demo', parameter 'value': the annotation 'list[Nowhere]' cannot be resolved: "
        "name 'Nowhere' is not defined; define or import its names at run time, above the task"
    )


def test_the_return_annotation_can_be_unresolvable() -> None:
    """The return annotation is not part of the payload, and neither is the annotation of an injected parameter."""

    def function(context: "Nowhere", a: int) -> "Nowhere":  # type: ignore[name-defined] # noqa: F821 - the point
        pass

    codec = ArgumentsCodec(function, name="demo", injected=frozenset({"context"}))

    assert codec.parameters == ("a",)


def test_wrapped_functions_and_unusual_names_work() -> None:
    """A decorator that uses functools.wraps hides nothing; names need no Go-like form."""

    def function(self: int, __x: int, größe: "Point", json: int = 1) -> None:
        pass

    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> None:
        pass

    codec = ArgumentsCodec(wrapper, name="demo")

    payload = codec.encode((1, 2, Point(3)), {"json": 4})
    assert codec.decode(payload) == {"self": 1, "__x": 2, "größe": Point(3), "json": 4}


# --- results ---


@rows(
    ("value", "type_", "data"),
    [
        (None, None, b"null"),
        ({"a": 1}, Any, b'{"a":1}'),
        (Point(1), Point, b'{"x":1,"label":""}'),
        (CUSTOMER, Customer, None),
        ([CUSTOMER], list[Customer], None),
        (b"a", bytes, b'"YQ=="'),
        ({1: WHEN}, dict[int, datetime], None),
    ],
)
def test_a_result_survives_encoding_and_decoding(value: object, type_: Any, data: bytes | None) -> None:
    """Results follow the return annotation as arguments follow theirs."""
    encoded = encode_result(value)

    assert decode_result(encoded, type_) == value
    assert data is None or encoded == data


def test_empty_result_bytes_are_null() -> None:
    """Go may write an empty result."""
    assert decode_result(b"", Any) is None


@rows(
    ("value", "message"),
    [
        (Opaque(), "result: Opaque has no JSON form"),
        (float("nan"), "result: NaN and infinity have no JSON form"),
        (CYCLE, "result: is nested too deeply or contains itself"),
        ("\ud800" + CANARY, "result: text with a lone surrogate has no UTF-8 form"),
    ],
)
def test_a_result_without_json_form_is_refused(value: object, message: str) -> None:
    """The error names only the type."""
    with pytest.raises(ResultValueError) as caught:
        encode_result(value)
    assert str(caught.value) == message
    assert_silent(caught.value)


@rows(
    ("data", "type_", "message"),
    [
        (b'"s3cr3t-canary"', int, "result: expected int, got str"),
        (b'{"x":"s3cr3t-canary"}', Point, "result: expected int, got str at .x"),
        (b"s3cr3t-canary", int, "result: not valid JSON"),
        (b"\xff", str, "result: not valid JSON"),
        (b'"s3cr3t-canary"', Color, "result: not an allowed value of Color"),
        (b'{"id":"s3cr3t-canary"}', Customer, "result: rejected by Customer (id: uuid_parsing, fullName: missing)"),
    ],
)
def test_a_result_of_another_type_is_refused(data: bytes, type_: Any, message: str) -> None:
    """The error names the types."""
    with pytest.raises(ResultValueError) as caught:
        decode_result(data, type_)
    assert str(caught.value) == message
    assert_silent(caught.value)
