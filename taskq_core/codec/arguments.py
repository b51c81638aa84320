"""Encode and decode the arguments of one task.

The fast path is a few calls of msgspec. If it fails, the slow path checks each argument on its own. The slow path
either accepts the arguments, for example a tuple for a list, or finds the reason for the error. The module `signature`
reads the parameters, `values` checks a single value, and `messages` builds the error texts.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import msgspec.structs
from msgspec import UNSET

from taskq_core.codec.messages import RefusedError, describe, describe_unreadable, split_path
from taskq_core.codec.references import KeysToLoad, LoadedObjects, Reference, References, refer, replace
from taskq_core.codec.signature import Parameter, payload_struct, read_signature
from taskq_core.codec.values import build, check_value, encode_ordered, encode_plain, read_fields
from taskq_core.errors import MissingReferenceError, PayloadError, TaskArgumentsError
from taskq_core.warnings import ArgumentTypeWarning, warn_caller


class Later:
    """Placeholder for an argument whose value is not known when the call is encoded, such as the result of a step.

    Attributes:
        what: Data of the code that created the placeholder. The codec does not use it.
    """

    __slots__ = ("what",)

    def __init__(self, what: object) -> None:
        self.what = what


class ArgumentsCodec:
    """Encodes and decodes the arguments of one task. Created once per task and used for every call.

    Args:
        function: The task's function, whose signature is read. The codec never calls it.
        name: Name of the task for error messages.
        strict: Reject payloads with unknown fields instead of ignoring and counting these fields.
        injected: Parameters that the worker fills. They are not in the payload.
        references: Classes of an adapter whose objects are passed by key. None if no adapter has such classes.

    Attributes:
        parameters: Names of the arguments that a payload may contain, in the order of the signature.
        known: `Parameter` by name.
        has_references: Whether objects must be loaded before the function can be called.
        is_variadic: Whether the function has `*args` or `**kwargs`. The payload has a list or an object under that
            name, and `split` converts decoded arguments for the call.
        takes_only_json: Whether arguments must be JSON values. Otherwise they may have any type of an annotation.
        rest, named_rest: The names of `*args` and `**kwargs`, or None.

    Raises:
        TaskDefinitionError: The signature has positional-only parameters, or an annotation that cannot be resolved or
            has no JSON form.
    """

    takes_only_json = False
    _has_warned = False

    def __init__(
        self,
        function: Callable[..., object],
        *,
        name: str,
        strict: bool = False,
        injected: frozenset[str] = frozenset(),
        references: References | None = None,
    ) -> None:
        self.name, self.strict, self._injected = name, strict, injected
        known = read_signature(function, name, injected, references)
        self._set_parameters(known)
        self._optional = tuple(each.name for each in known.values() if not each.required)
        exact, lenient = (payload_struct(name, known, forbid) for forbid in (True, False))
        self._struct: Any = exact
        self._decode_exact = msgspec.json.Decoder(exact, dec_hook=build).decode
        self._decode_lenient = msgspec.json.Decoder(lenient, dec_hook=build).decode

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Bind the arguments to the signature, check that the task can read them, and return the payload.

        An argument must match its annotation: text is not accepted as a `UUID` or a `datetime`, nor `True` as an int.
        Accepted are an int for a float, a list for another list-like type, and a mapping for a record. An argument that
        is passed by key may be the object or its key.

        Raises:
            TaskArgumentsError: An argument is missing, unknown, given twice, of the wrong type or without a JSON form.
        """
        # Most calls take the fast path, where msgspec binds, encodes and compares the arguments in C (half a
        # microsecond).
        if self._referring or self.is_variadic:
            return self._encode_with_care(args, kwargs)
        try:
            bound = self._struct(*args, **kwargs)
            payload = encode_ordered(bound)
            fits = self._decode_exact(payload) == bound
        except Exception:
            fits = False
        return payload if fits else self._encode_with_care(args, kwargs)

    def encode_in_parts(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> list[bytes | Later]:
        """Encode a call with `Later` arguments. Return the payload in pieces: bytes, and `Later`s at their positions.

        Raises:
            TaskArgumentsError: See `encode`. A `Later` argument counts as valid.
        """
        parts: list[bytes | Later] = []
        written = b"{"
        for position, (name, value) in enumerate(self.bind(args, kwargs).items(), start=1):
            written += (b"" if not parts and written == b"{" else b",") + encode_plain(name) + b":"
            for piece in self._pieces(name, value, _position(position, args)):
                if isinstance(piece, Later):
                    parts += (written, piece)
                    written = b""
                else:
                    written += piece
        return [*parts, written + b"}"]

    def _pieces(self, name: str, value: Any, position: str) -> Iterator[bytes | Later]:
        """Yield one argument as JSON. Yield each `Later` object unchanged, even inside `*args` and `**kwargs`."""
        members: list[tuple[bytes, Any, Any]]
        if name == self.rest:
            members = [(b"", each, [each]) for each in value]
        elif name == self.named_rest:
            members = [(encode_plain(key) + b":", each, {key: each}) for key, each in value.items()]
        else:
            yield value if isinstance(value, Later) else encode_ordered(self._plain(name, value, position))
            return
        opening, closing = (b"[", b"]") if name == self.rest else (b"{", b"}")
        yield opening
        for number, (key, each, alone) in enumerate(members):
            yield b"," if number else b""
            if isinstance(each, Later):
                yield key
                yield each
            else:
                yield encode_ordered(self._plain(name, alone, position))[1:-1]
        yield closing

    def _plain(self, name: str, value: object, position: str) -> object:
        """Check one argument and return it as plain JSON values."""
        plain, problem = value, ""
        try:
            if name in self._referring:
                plain = refer(self.known[name].annotation, value)
        except RefusedError as exc:
            problem = str(exc)
        if not problem:
            plain, problem, loss = check_value(self.known[name].annotation, self.known[name].decode, plain)
            if loss and not self._has_warned:
                self._has_warned = True
                warn_caller(
                    f"task {self.name!r}, parameter {name!r}: {loss}, because its annotation does not name the type; "
                    "annotate the parameter, or pass a JSON value",
                    ArgumentTypeWarning,
                )
        # Raise the error after the `except` block. Otherwise its `__context__` would contain the argument's value.
        if problem:
            raise TaskArgumentsError(self.name, name, f"{problem}{position}")
        return plain

    def decode(self, payload: bytes) -> dict[str, object]:
        """Decode a payload and return the arguments by name. An object that is passed by key is returned as its key.

        Arguments that are missing in the payload are left out, so that the function's defaults apply. An empty payload
        counts as an empty object, because Go writes it for nil.

        Raises:
            PayloadError: The payload is not a JSON object, lacks a required argument, has a value of a wrong type or,
                with `strict`, has an unknown field.
        """
        return self._replaced(self.decode_counting(payload)[0], lambda reference: reference.key)

    def decode_counting(self, payload: bytes) -> tuple[dict[str, object], int]:
        """Decode a payload. Return the arguments by name, and the number of unknown fields that were ignored.

        An object that is passed by key is returned as a `Reference`. `with_found` replaces it by the loaded object.

        Raises:
            PayloadError: See `decode`.
        """
        try:
            arguments = self._decode_exact(payload)
        except MemoryError:
            raise  # the payload may be valid, so it must not be reported as wrong
        except Exception:
            arguments = None
        if arguments is None:
            return self._decode_with_care(payload or b"{}")
        return self._as_keywords(arguments), 0

    def keys_to_load(self, kwargs: Mapping[str, object]) -> KeysToLoad:
        """Return the keys of all objects that must be loaded before the function can be called."""
        keys_to_load: dict[Any, dict[Any, None]] = {}

        def add(reference: Reference) -> object:
            keys_to_load.setdefault(reference.kind, {})[reference.key] = None
            return reference

        self._replaced(kwargs, add)
        return {kind: list(keys) for kind, keys in keys_to_load.items()}

    def with_found(self, kwargs: Mapping[str, object], found: LoadedObjects) -> dict[str, object]:
        """Return decoded arguments with their references replaced by loaded objects.

        Raises:
            MissingReferenceError: An object was not found.
        """
        for kind, keys in self.keys_to_load(kwargs).items():
            missing = [key for key in keys if key not in found.get(kind, {})]
            if missing:
                raise MissingReferenceError(self.name, kind.label, tuple(missing))
        return self._replaced(kwargs, lambda reference: found[reference.kind][reference.key])

    def _replaced(self, kwargs: Mapping[str, object], by: Callable[[Reference], object]) -> dict[str, object]:
        return {name: replace(value, by) if name in self._referring else value for name, value in kwargs.items()}

    def _as_keywords(self, arguments: Any) -> dict[str, object]:
        keywords: dict[str, object] = msgspec.structs.asdict(arguments)
        for name in self._optional:
            if keywords[name] is UNSET:
                del keywords[name]
        return keywords

    def _decode_with_care(self, payload: bytes) -> tuple[dict[str, object], int]:
        fields = None
        parameter, problem = "", ""
        try:
            arguments = self._decode_lenient(payload)
            fields = read_fields(payload)  # also reads unknown fields, which `_decode_lenient` skips
        except MemoryError:
            raise
        except Exception as exc:
            parameter, problem = self._explain(exc, payload)
        # Raise the error after the `except` block. Otherwise its `__context__` would contain values of the payload.
        if fields is None:
            raise PayloadError(self.name, parameter, problem)
        unknown = [field for field in fields if field not in self.known]
        if unknown and self.strict:
            raise PayloadError(self.name, "", f"unknown field {unknown[0][:80]!r}")
        return self._as_keywords(arguments), len(unknown)

    def _explain(self, exc: Exception, payload: bytes) -> tuple[str, str]:
        """Return why the decoding of a payload failed: the parameter ("" if unknown), and the problem."""
        if not isinstance(exc, msgspec.ValidationError):
            return "", describe_unreadable(exc)
        head, at = split_path(str(exc))
        if at is None:
            if missing := re.fullmatch(r"Object missing required field `(\w+)`", head):
                return self._explain_missing(missing[1], payload)
            got = re.fullmatch(r"Expected `object`, got `(\w+)`", head)
            return "", f"expected a JSON object, got {got[1]}" if got else "not readable"
        name = re.match(r"\.(\w+)", at)
        if name is None or name[1] not in self.known:
            return "", "not readable"
        return name[1], describe(exc, self.known[name[1]].annotation, at[name.end() :])

    def _explain_missing(self, parameter: str, payload: bytes) -> tuple[str, str]:
        """Name the first unknown field too, because it may be the parameter under an earlier name."""
        try:
            unknown = [field for field in read_fields(payload) if field not in self.known]
        except Exception as exc:
            return "", describe_unreadable(exc)
        hint = f"; the payload has the field {unknown[0][:80]!r}, which is not a parameter" if unknown else ""
        return parameter, f"missing in the payload{hint}"

    def _encode_with_care(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Slow path of `encode`: check each argument on its own. Objects that are passed by key become references."""
        values = self.bind(args, kwargs)
        plain = {
            name: self._plain(name, value, _position(position, args))
            for position, (name, value) in enumerate(values.items(), start=1)
        }
        return encode_ordered(self._struct(**plain))

    def _set_parameters(self, known: Mapping[str, Parameter]) -> None:
        """Store the parameters whose values are in the payload."""

        def named(kind: Any) -> list[str]:
            return [each.name for each in known.values() if each.kind is kind]

        self.known: Mapping[str, Parameter] = MappingProxyType(known)
        self.parameters: tuple[str, ...] = tuple(known)
        self._referring = tuple(each.name for each in known.values() if each.holds_references)
        self.has_references = bool(self._referring)

        kinds = inspect.Parameter
        self._only_positional = len(named(kinds.POSITIONAL_ONLY))
        self._positional = named(kinds.POSITIONAL_ONLY) + named(kinds.POSITIONAL_OR_KEYWORD)
        self.rest = next(iter(named(kinds.VAR_POSITIONAL)), None)
        self.named_rest = next(iter(named(kinds.VAR_KEYWORD)), None)
        self.is_variadic = self.rest is not None or self.named_rest is not None

    def split(self, arguments: Mapping[str, Any], positional: int = 0) -> tuple[list[Any], dict[str, Any]]:
        """Convert arguments by name to positional and keyword arguments of a call.

        Args:
            arguments: Arguments by name. Names that are not in `parameters` go to `**kwargs`.
            positional: Minimum number of positional arguments. More are positional only if the signature requires it.
        """
        rest: Sequence[Any] = arguments.get(self.rest, ()) if self.rest else ()
        count = max(positional, self._only_positional, len(self._positional) if rest else 0)
        args: list[Any] = []
        for name in self._positional[:count]:
            if name not in arguments:
                break
            args.append(arguments[name])
        taken = {*self._positional[: len(args)], self.rest, self.named_rest}
        named = {name: value for name, value in arguments.items() if name not in taken}
        return [*args, *rest], named | (arguments.get(self.named_rest, {}) if self.named_rest else {})

    def call(self, function: Callable[..., Any], /, *given: object, **decoded: object) -> Any:
        """Call a function that has `*args` or `**kwargs` with the arguments `given`, followed by decoded arguments."""
        args, kwargs = self.split(decoded)
        return function(*given, *args, **kwargs)

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Bind the arguments of a call to parameters as Python does, and return them by name, without defaults.

        Raises:
            TaskArgumentsError: An argument is missing, unknown or given twice. The text is the same as Python's.
        """
        if len(args) > len(self._positional) and self.rest is None:
            least, most = sum(self.known[each].required for each in self._positional), len(self._positional)
            takes = f"{most}" if least == most else f"from {least} to {most}"
            plural = "argument" if most == 1 else "arguments"
            given = f"{len(args)} {'was' if len(args) == 1 else 'were'} given"
            raise TaskArgumentsError(self.name, "", f"takes {takes} positional {plural} but {given}")
        values: dict[str, Any] = dict(zip(self._positional, args, strict=False))
        if self.rest is not None and len(args) > len(self._positional):
            values[self.rest] = list(args[len(self._positional) :])
        further: dict[str, object] = {}
        for name, value in kwargs.items():
            if name not in self.known or name in (self.rest, self.named_rest):
                if self.named_rest is None or name in self._injected or not isinstance(name, str):
                    raise TaskArgumentsError(self.name, "", self._describe_unexpected(name))
                further[name] = value
            elif name in values:
                raise TaskArgumentsError(self.name, name, f"got multiple values for argument {name!r}")
            else:
                values[name] = value
        if self.named_rest is not None and further:
            values[self.named_rest] = further
        for kind, keyword_only in (("positional", False), ("keyword-only", True)):
            missing = [
                each.name
                for each in self.known.values()
                if each.required
                and (each.kind is inspect.Parameter.KEYWORD_ONLY) is keyword_only
                and values.get(each.name, UNSET) is UNSET
            ]
            if missing:
                plural = "argument" if len(missing) == 1 else "arguments"
                problem = f"missing {len(missing)} required {kind} {plural}: {_enumerate(missing)}"
                raise TaskArgumentsError(self.name, missing[0] if len(missing) == 1 else "", problem)
        return {name: values[name] for name in self.parameters if values.get(name, UNSET) is not UNSET}

    def _describe_unexpected(self, name: object) -> str:
        if name in self._injected:
            return f"got {name!r}, which the worker injects; remove the argument"
        if not isinstance(name, str):
            return f"keywords must be strings, got {type(name).__name__}"
        import difflib  # imported here, because most processes never need it

        near = difflib.get_close_matches(name, self.parameters, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"got an unexpected keyword argument {name!r}{hint}"


def _position(position: int, args: tuple[object, ...]) -> str:
    return f" (position {position})" if position <= len(args) else ""


def _enumerate(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"
