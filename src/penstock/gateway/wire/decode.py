"""Bytes to a wire struct: well-formed, every field known, every number and size within its bounds, or a 400 that names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Mapping
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Raw, Struct

from penstock.core.errors import InvalidRequest, Unsupported, closest
from penstock.gateway.wire.fields import MAX_DEPTH, MAX_LABEL_CHARS, MAX_LABELS, RANGES, SIZES, Neutral, Range

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

NOTHING_ELSE: Mapping[str, Neutral] = MappingProxyType({})
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_PLACE = re.compile(r" - at (?:`key` in )?`\$\.?([^`]*)`$")


def decode(body: bytes, kind: type[S], neutral: Mapping[str, Neutral], recorded: Collection[str] = ()) -> tuple[S, dict[str, object]]:
    """The struct and the recorded labels. Raises InvalidRequest or Unsupported, with `param` where one field is to blame."""
    given = _parsed(body, dict[str, Raw])
    check_names(given, kind.__struct_fields__, neutral, recorded)
    fields = _parsed(body, kind)
    for name in kind.__struct_fields__:
        if (value := getattr(fields, name)) is not None:
            check_value(name, value)
    return fields, {name: _label(name, given[name]) for name in recorded if name in given}


def check_names(
    given: Mapping[str, Raw],
    honoured: Collection[str],
    neutral: Mapping[str, Neutral],
    recorded: Collection[str] = (),
    *,
    at: str = "",
) -> None:
    """Refuse by name what is unknown, and what is known and asks for something that is not there. `at` prefixes `param`."""
    for name, raw in given.items():
        if name in honoured or name in recorded:
            continue
        param = at + name
        if name not in neutral:
            near = closest(name, (*honoured, *neutral, *recorded))
            raise InvalidRequest(f"unknown field {param[:80]!r}", hint=f"did you mean {near!r}?" if near else None, param=param[:200])
        if not neutral[name].accepts(_parsed(bytes(raw), object)):
            raise Unsupported(f"{param} is not honoured: {neutral[name].why}", hint=_hint(neutral[name]), param=param)


def decode_inner(at: str, given: Mapping[str, Raw], kind: type[S], neutral: Mapping[str, Neutral] = NOTHING_ELSE) -> S:
    """A struct within the body, its fields held to a table as the body's are. Raises as `decode` does; `param` begins with `at`."""
    check_names(given, kind.__struct_fields__, neutral, at=f"{at}.")
    try:
        return msgspec.json.decode(msgspec.json.encode(given), type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest(f"{at}: {str(error).replace('`', '').replace('$.', '')}", param=at) from None


def check_value(name: str, value: object) -> None:
    """Hold a number to its range and a collection to its size."""
    if value is None:
        return
    if name in RANGES and isinstance(value, int | float) and not isinstance(value, bool):
        _check_range(name, value, RANGES[name])
    if name in SIZES and isinstance(value, list | dict) and len(value) > SIZES[name]:
        raise InvalidRequest(f"{name} has {len(value)} entries; the most is {SIZES[name]}", param=name)


def check_depth(name: str, value: object, *, most: int = MAX_DEPTH, left: int | None = None) -> None:
    """Hold a free-form value to a nesting depth."""
    left = most if left is None else left
    if left == 0:
        raise InvalidRequest(f"{name} is nested too deeply; the most is {most} levels", param=name)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        check_depth(name, item, most=most, left=left - 1)


def _check_range(name: str, value: float, bounds: Range) -> None:
    if math.isnan(value):
        raise InvalidRequest(f"{name} is not a number", param=name)
    if bounds.high is not None and value > bounds.high:
        raise InvalidRequest(f"{name} is {_short(value)}; the most is {_short(bounds.high)}", param=name)
    if bounds.low is not None and value < bounds.low:
        raise InvalidRequest(f"{name} is {_short(value)}; the least is {_short(bounds.low)}", param=name)
    if bounds.above is not None and value <= bounds.above:
        raise InvalidRequest(f"{name} is {_short(value)}; it must be above {_short(bounds.above)}", param=name)


def _short(value: float) -> str:
    """Without the thousands of digits that JSON allows."""
    if abs(value) >= 1e300:
        return "beyond 1e300"
    return str(value) if isinstance(value, int) and abs(value) < 1e21 else f"{value:g}"


def _hint(neutral: Neutral) -> str:
    accepted = [msgspec.json.encode(value).decode() for value in neutral.values]
    return f"leave it out, or send {' or '.join(accepted)}" if accepted else "leave it out"


@cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    """Made once for each type, of which there are few."""
    return msgspec.json.Decoder(kind)


def _parsed(body: bytes, kind: type[T]) -> T:
    try:
        parsed: T = _decoder(kind).decode(body)  # type: ignore[arg-type]
        return parsed
    except msgspec.ValidationError as error:
        raise _misfit(str(error), kind) from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: not UTF-8, or a number of thousands of digits
        raise InvalidRequest(f"the body is not valid JSON: {error}", hint="send one JSON object in UTF-8") from None


def _misfit(message: str, kind: object) -> InvalidRequest:
    """msgspec's "Expected `int`, got `str` - at `$.n`" as an error that names the field, and what it could have been."""
    place = _PLACE.search(message)
    if place is None or not place[1]:
        return InvalidRequest(f"the body does not fit: {message.replace('`', '')}")
    known = _known(kind, place[1])
    if unknown := _UNKNOWN.match(message):
        param = f"{place[1]}.{unknown[1]}"
        near = closest(unknown[1], known)
        hint = f"did you mean '{place[1]}.{near}'?" if near else None
        return InvalidRequest(f"unknown field {param[:80]!r}", hint=hint, param=param[:200])
    what = message[: place.start()].replace("`", "")
    hint = f"one of {', '.join(map(repr, known))}" if message.startswith("Invalid enum") and known else None
    return InvalidRequest(f"{place[1]}: {what[:1].lower()}{what[1:]}", hint=hint, param=place[1])


def _known(kind: object, place: str) -> tuple[str, ...]:
    """The fields or the values that there are at a place of a body; none where it lies within a list."""
    for name in place.split("."):
        kind = next((get_type_hints(one)[name] for one in _options(kind) if name in getattr(one, "__struct_fields__", ())), None)
    fields = (name for one in _options(kind) for name in getattr(one, "__struct_fields__", ()))
    return (*fields, *(value for one in _options(kind) if get_origin(one) is Literal for value in get_args(one)))


def _options(kind: object) -> tuple[Any, ...]:
    return get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)


def _label(name: str, raw: Raw) -> object:
    """A value for the access log: a short string, or a small flat mapping of them."""
    kind: object = dict[str, str] | None if name == "metadata" else str | None
    try:
        value: object = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest(f"{name}: {str(error)[:200].replace('`', '')}", param=name) from None
    texts = [value] if isinstance(value, str) else [*value, *value.values()] if isinstance(value, dict) else []
    if len(texts) > 2 * MAX_LABELS:
        raise InvalidRequest(f"{name} has {len(texts) // 2} entries; the most is {MAX_LABELS}", param=name)
    for text in texts:
        if len(text) > MAX_LABEL_CHARS:
            raise InvalidRequest(f"{name} has a text of {len(text)} characters; the most is {MAX_LABEL_CHARS}", param=name)
    return value
