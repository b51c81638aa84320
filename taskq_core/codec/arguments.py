"""Encode and decode the arguments of one task.

The fast road is a handful of calls into msgspec. When it does not lead through, the slow road finds out why, or
finds the value to fit after all (a tuple for a list). The signature is read in `signature`, a single value is judged in
`values`, and the words of every refusal come from `wording`.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import msgspec.structs
from msgspec import UNSET

from taskq_core.codec.references import Found, Reference, References, Wanted, refer, replace
from taskq_core.codec.signature import Parameter, payload_struct, read_signature
from taskq_core.codec.values import build, check_value, encode_ordered, encode_plain, read_fields
from taskq_core.codec.wording import RefusedError, describe, describe_unreadable, split_path
from taskq_core.errors import MissingReferenceError, PayloadError, TaskArgumentsError


class Later:
    """Stands for an argument that is not known when a call is written down: it is put there when it is.

    Attributes:
        what: What it will be; only who made it knows.
    """

    __slots__ = ("what",)

    def __init__(self, what: object) -> None:
        self.what = what


class ArgumentsCodec:
    """Arguments <-> payload of one task; built once per task, then used for every call.

    Args:
        function: The task's function; it is never called here.
        name: Name of the task, for errors.
        strict: Refuse payloads with unknown fields instead of counting them.
        injected: Parameters the worker fills in itself. They are no part of the payload.
        references: Classes of an adapter whose values travel as their keys; None where there are none.

    Attributes:
        parameters: The names that may stand in a payload, in the order of the signature.
        known: What is known of each of them, by name.
        has_references: Whether arguments have to be fetched before the function can be called.

    Raises:
        TaskDefinitionError: The signature has positional-only parameters, `*args` or `**kwargs`, or an annotation that
            cannot be resolved or has no JSON form.
    """

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
        self._known = read_signature(function, name, injected, references)
        self.known: Mapping[str, Parameter] = MappingProxyType(self._known)
        self._referring = tuple(each.name for each in self._known.values() if each.holds_references)
        self.has_references = bool(self._referring)
        self.parameters: tuple[str, ...] = tuple(self._known)
        self._optional = tuple(each.name for each in self._known.values() if not each.required)
        exact, lenient = (payload_struct(name, self._known, forbid) for forbid in (True, False))
        self._struct: Any = exact
        self._decode_exact = msgspec.json.Decoder(exact, dec_hook=build).decode
        self._decode_lenient = msgspec.json.Decoder(lenient, dec_hook=build).decode

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Bind the arguments to the signature and return the payload, checked to be readable by the task.

        A type is wrong when the annotation says so: text is not taken for a `UUID` or a `datetime`, `True` not for an
        int. An int for a float, any list-like for another one, and a mapping for a record pass. What travels as its key
        may be given as that key.

        Raises:
            TaskArgumentsError: An argument is missing, unknown, given twice, of the wrong type or without a JSON form.
        """
        # msgspec binds, encodes and compares in C: about half a microsecond. All explaining waits for the slow road.
        if self._referring:
            return self._encode_referring(args, kwargs)
        try:
            bound = self._struct(*args, **kwargs)
            payload = encode_ordered(bound)
            fits = self._decode_exact(payload) == bound
        except Exception:
            fits = False
        return payload if fits else self._encode_with_care(args, kwargs)

    def encode_in_parts(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> list[bytes | Later]:
        """Do what `encode` does for a call of which some arguments are `Later`: return the payload around them.

        Raises:
            TaskArgumentsError: See `encode`. What is not known yet is taken to fit.
        """
        parts: list[bytes | Later] = []
        written = b"{"
        for position, (name, value) in enumerate(self.bind(args, kwargs).items(), start=1):
            written += (b"," if parts or len(written) > 1 else b"") + encode_plain(name) + b":"
            if isinstance(value, Later):
                parts += (written, value)
                written = b""
            else:
                written += self._encode_one(name, value, _position(position, args))
        return [*parts, written + b"}"]

    def _encode_one(self, name: str, value: object, position: str) -> bytes:
        """Return one argument as JSON."""
        plain, problem = value, ""
        try:
            if name in self._referring:
                plain = refer(self._known[name].annotation, value)
        except RefusedError as exc:
            problem = str(exc)
        if not problem:
            plain, problem = check_value(self._known[name].annotation, self._known[name].decode, plain)
        if problem:  # raised out here, so that no value travels along as the error's context
            raise TaskArgumentsError(self.name, name, f"{problem}{position}")
        return encode_ordered(plain)

    def _encode_referring(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Bind arguments and put references in the place of what travels as its key, then check them."""
        values = self.bind(args, kwargs)
        for position, name in enumerate(values, start=1):
            if name in self._referring:
                problem = ""
                try:
                    values[name] = refer(self._known[name].annotation, values[name])
                except RefusedError as exc:
                    problem = str(exc)
                if problem:  # raised out here, so that no value travels along as the error's context
                    raise TaskArgumentsError(self.name, name, f"{problem}{_position(position, args)}")
        return self._encode_with_care(tuple(values.values())[: len(args)], dict(list(values.items())[len(args) :]))

    def decode(self, payload: bytes) -> dict[str, object]:
        """Return the keyword arguments for the call; parameters missing in the payload keep their defaults.

        An empty payload counts as an empty object: Go writes it for nil. What travels as its key is that key here.

        Raises:
            PayloadError: The payload is no JSON object, lacks a parameter, holds a wrong type, or, with `strict`,
                an unknown field.
        """
        return self._replaced(self.decode_counting(payload)[0], lambda reference: reference.key)

    def decode_counting(self, payload: bytes) -> tuple[dict[str, object], int]:
        """Do what `decode` does, but for what has to be fetched, and return how many unknown fields were ignored.

        What travels as its key is a reference here, until `with_found` puts the value in its place.

        Raises:
            PayloadError: See `decode`.
        """
        try:
            arguments = self._decode_exact(payload)
        except MemoryError:
            raise  # says nothing about the payload
        except Exception:
            arguments = None
        if arguments is None:
            return self._decode_with_care(payload or b"{}")
        return self._as_keywords(arguments), 0

    def wanted(self, kwargs: Mapping[str, object]) -> Wanted:
        """Return what has to be fetched before the function can be called with decoded arguments."""
        wanted: dict[Any, dict[Any, None]] = {}

        def note(reference: Reference) -> object:
            wanted.setdefault(reference.kind, {})[reference.key] = None
            return reference

        self._replaced(kwargs, note)
        return {kind: list(keys) for kind, keys in wanted.items()}

    def with_found(self, kwargs: Mapping[str, object], found: Found) -> dict[str, object]:
        """Return decoded arguments with what was fetched in the place of its keys.

        Raises:
            MissingReferenceError: Something was not found.
        """
        for kind, keys in self.wanted(kwargs).items():
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
            fields = read_fields(payload)  # with the names of unknown ones, at which the first did not look
        except MemoryError:
            raise
        except Exception as exc:
            parameter, problem = self._explain(exc)
        if fields is None:  # raised out here, so that no value travels along as the error's context
            raise PayloadError(self.name, parameter, problem)
        unknown = [field for field in fields if field not in self._known]
        if unknown and self.strict:
            raise PayloadError(self.name, "", f"unknown field {unknown[0][:80]!r}")
        return self._as_keywords(arguments), len(unknown)

    def _explain(self, exc: Exception) -> tuple[str, str]:
        """Name the parameter and the problem behind a failed decode of a whole payload."""
        if not isinstance(exc, msgspec.ValidationError):
            return "", describe_unreadable(exc)
        head, at = split_path(str(exc))
        if at is None:
            if missing := re.fullmatch(r"Object missing required field `(\w+)`", head):
                return missing[1], "missing"
            got = re.fullmatch(r"Expected `object`, got `(\w+)`", head)
            return "", f"expected a JSON object, got {got[1]}" if got else "not readable"
        name = re.match(r"\.(\w+)", at)
        if name is None or name[1] not in self._known:
            return "", "not readable"
        return name[1], describe(exc, self._known[name[1]].annotation, at[name.end() :])

    def _encode_with_care(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        values = self.bind(args, kwargs)
        plain = {}
        for position, (name, value) in enumerate(values.items(), start=1):
            plain[name], problem = check_value(self._known[name].annotation, self._known[name].decode, value)
            if problem:
                raise TaskArgumentsError(self.name, name, f"{problem}{_position(position, args)}")
        return encode_ordered(self._struct(**plain))

    def split(self, arguments: Mapping[str, Any], positional: int) -> tuple[list[Any], dict[str, Any]]:
        """Return arguments by name as a call takes them: all by name, unless a codec knows functions that need others.

        Args:
            arguments: Arguments by the names of `parameters`.
            positional: How many were given by position, where that has to be kept.
        """
        return [], dict(arguments)

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Return the arguments by name, bound as Python does; parameters left out keep their defaults.

        Raises:
            TaskArgumentsError: One is missing, unknown or given twice, in Python's words.
        """
        positional = [each for each in self._known.values() if not each.keyword_only]
        if len(args) > len(positional):
            least, most = sum(each.required for each in positional), len(positional)
            takes = f"{most}" if least == most else f"from {least} to {most}"
            plural = "argument" if most == 1 else "arguments"
            given = f"{len(args)} {'was' if len(args) == 1 else 'were'} given"
            raise TaskArgumentsError(self.name, "", f"takes {takes} positional {plural} but {given}")
        values = {each.name: value for each, value in zip(positional, args, strict=False)}
        for name, value in kwargs.items():
            if name in values:
                raise TaskArgumentsError(self.name, name, f"got multiple values for argument {name!r}")
            if name not in self._known:
                raise TaskArgumentsError(self.name, "", self._describe_unexpected(name))
            values[name] = value
        for kind, keyword_only in (("positional", False), ("keyword-only", True)):
            missing = [
                each.name
                for each in self._known.values()
                if each.required and each.keyword_only is keyword_only and values.get(each.name, UNSET) is UNSET
            ]
            if missing:
                plural = "argument" if len(missing) == 1 else "arguments"
                problem = f"missing {len(missing)} required {kind} {plural}: {_enumerate(missing)}"
                raise TaskArgumentsError(self.name, missing[0] if len(missing) == 1 else "", problem)
        return {name: values[name] for name in self.parameters if values.get(name, UNSET) is not UNSET}

    def _describe_unexpected(self, name: object) -> str:
        if name in self._injected:
            return f"got {name!r}, which the worker fills in itself"
        if not isinstance(name, str):
            return f"keywords must be strings, got {type(name).__name__}"
        import difflib  # not above: most processes never need it

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
