"""Read the signature of a task: its parameters, their types, and the msgspec Struct of its payload.

In the payload, `*args` is a list and `**kwargs` an object, each under its own name. A signature is rejected if a JSON
object of named arguments cannot represent it: positional-only parameters, annotations without a JSON form, and names
that cannot be resolved.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import msgspec.inspect
from msgspec import UNSET, Struct

from taskq_core.codec.messages import type_name
from taskq_core.codec.references import Reference, References, holds_references, with_references
from taskq_core.codec.values import build, is_model
from taskq_core.errors import TaskDefinitionError


class Parameter(Struct, frozen=True, kw_only=True):
    """A parameter of a task whose value is in the payload."""

    name: str
    annotation: Any
    required: bool
    kind: inspect._ParameterKind
    decode: Callable[[bytes], object]
    holds_references: bool


def read_signature(
    function: Callable[..., object], task: str, injected: frozenset[str], references: References | None = None
) -> dict[str, Parameter]:
    """Return the parameters of the payload by name, in the order of the signature.

    Raises:
        TaskDefinitionError: The function cannot be a task. The message names the parameter and what to change.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError, NameError) as exc:
        raise TaskDefinitionError(f"task {task!r}: the signature cannot be read: {exc}") from None
    known = {}
    for each in signature.parameters.values():
        if each.name in injected:
            continue
        _refuse_kind(each, task)
        hint = resolve_annotation(each, function, f"task {task!r}")
        if each.kind is each.VAR_POSITIONAL:
            hint = types.GenericAlias(list, (hint,))
        elif each.kind is each.VAR_KEYWORD:
            is_unpacked = typing.get_origin(hint) is typing.Unpack  # as in `**kwargs: Unpack[SomeTypedDict]`
            hint = typing.get_args(hint)[0] if is_unpacked else types.GenericAlias(dict, (str, hint))
        elif each.default is None:
            hint = typing.Optional[hint]  # noqa: UP045 - `|` fails on annotations that are not types
        where = f"task {task!r}, parameter {each.name!r}"
        if references is not None:
            try:
                hint = with_references(hint, references)
            except TypeError as exc:
                raise TaskDefinitionError(f"{where}: {exc}") from None
        decode = _parameter_decoder(hint, where)
        known[each.name] = Parameter(
            name=each.name,
            annotation=hint,
            required=each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD),
            kind=each.kind,
            decode=decode,
            holds_references=references is not None and holds_references(hint),
        )
    return known


def _refuse_kind(parameter: inspect.Parameter, task: str) -> None:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise TaskDefinitionError(
            f"task {task!r}, parameter {parameter.name!r}: a positional-only parameter is not possible, because the "
            "payload passes arguments by name; remove the '/' from the signature"
        )


def resolve_annotation(parameter: inspect.Parameter, function: Callable[..., object], what: str) -> Any:
    """Return the annotation of a parameter, with names in a text annotation resolved in the scope of the function.

    `what` names the function in error messages.

    Raises:
        TaskDefinitionError: A name cannot be resolved.
    """
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return Any
    inner: Any = inspect.unwrap(function)
    inner = getattr(inner, "func", inner)  # the function of a functools.partial
    inner = getattr(inner, "__func__", inner)  # the function of a bound method
    holder = types.SimpleNamespace(__annotations__={parameter.name: annotation})
    try:
        hints = typing.get_type_hints(
            holder, globalns=getattr(inner, "__globals__", {}), localns=_local_names(inner), include_extras=True
        )
    except Exception as exc:
        raise TaskDefinitionError(
            f"{what}, parameter {parameter.name!r}: the annotation {annotation!r} cannot be resolved: {exc}; "
            "define or import its names at run time, above the task"
        ) from None
    return hints[parameter.name]


def _local_names(function: Any) -> dict[str, Any]:
    """Return the local names of the functions and classes around a function, the outermost first.

    Annotations may use names that the function object itself does not store. These names are still in the frames of the
    call stack, because the enclosing function or class body is running while it defines the task.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    bodies = []
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_locals is not frame.f_globals and _contains(frame.f_code, code):
            bodies.append(dict(frame.f_locals))
        frame = frame.f_back
    names: dict[str, Any] = {}
    for body in reversed(bodies):
        names |= body
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # the enclosing function has not assigned the closure variable yet
            continue
    names |= {each.__name__: each for each in getattr(function, "__type_params__", ())}
    return names


def _contains(outer: types.CodeType, code: types.CodeType) -> bool:
    inner = [each for each in outer.co_consts if isinstance(each, types.CodeType)]
    return any(each is code or _contains(each, code) for each in inner)


def _parameter_decoder(hint: Any, where: str) -> Callable[[bytes], object]:
    try:
        for custom in _custom_types(msgspec.inspect.type_info(hint), set()):
            if custom is not object and not is_model(custom) and not issubclass(custom, Reference):
                raise TypeError(f"type {custom.__qualname__} has no JSON form")
        return msgspec.json.Decoder(hint, dec_hook=build).decode
    except Exception as exc:
        raise TaskDefinitionError(f"{where}: the annotation {type_name(hint)} is not supported: {exc}") from None


def _custom_types(info: object, seen: set[int]) -> Iterator[type]:
    """Yield the classes inside a type, at any depth, that msgspec does not know."""
    if isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    elif isinstance(info, tuple):
        for each in info:
            yield from _custom_types(each, seen)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and id(info) not in seen:
        seen.add(id(info))  # visit each type once, because a record may contain itself
        for name in info.__struct_fields__:
            yield from _custom_types(getattr(info, name), seen)


def payload_struct(task: str, known: Mapping[str, Parameter], forbid: bool) -> type[msgspec.Struct]:
    """Return the msgspec Struct of a payload. Its constructor accepts arguments as the function does.

    A field that is UNSET is not written to the payload.
    """
    # Python mangles parameters that start with two underscores, except in a class whose name is only underscores.
    bases: tuple[type[msgspec.Struct], ...] = (msgspec.Struct,)
    for is_named in (True, False):
        fields = [
            (each.name, each.annotation) if each.required else (each.name, each.annotation, UNSET)
            for each in known.values()
            if (each.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD) is is_named
        ]
        try:
            struct = msgspec.defstruct("_", fields, bases=bases, kw_only=is_named, forbid_unknown_fields=forbid)
        except Exception as exc:
            raise TaskDefinitionError(f"task {task!r}: cannot build a payload of its parameters: {exc}") from None
        bases = (struct,)
    return bases[0]
