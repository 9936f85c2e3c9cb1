"""`penstock config`: the resolved settings as a TOML file, each with where it came from."""

from __future__ import annotations

import argparse
import json
import re
from decimal import Decimal

import msgspec
from msgspec import Struct

from penstock.cli.settings import read
from penstock.core.settings import HIDDEN, SHARED, Settings

SECRET = ("keys.secret", "api_key")  # set, but not shown
SECRET_HEADER = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)
PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")  # in an address


def run(arguments: argparse.Namespace) -> int:
    settings = read(arguments, arguments.models)
    lines: list[str] = []
    for room in SHARED:
        lines += [f"[{room}]", *_table(getattr(settings, room), room, settings), ""]
    for i, upstream in enumerate(settings.upstreams):
        lines += ["[[upstreams]]", *_table(upstream, f"upstreams.{i}", settings), ""]
    for i, model in enumerate(settings.models):
        lines += ["[[models]]", *(_line(key, getattr(model, key), settings.sources[f"models.{i}.{key}"]) for key in ("model", "name"))]
        lines += ["", "[models.engine]", *_table(model.engine, f"models.{i}.engine", settings), ""]
    print("\n".join(lines[:-1]))
    return 0


def _table(room: Struct, prefix: str, settings: Settings) -> list[str]:
    """The fields of a struct; those that are set to nothing are left out, for TOML has no word for it."""
    fields = [field for field in room.__struct_fields__ if getattr(room, field) is not None]
    return [_line(field, _shown(f"{prefix}.{field}", getattr(room, field)), settings.sources[f"{prefix}.{field}"]) for field in fields]


def _shown(path: str, value: object) -> object:
    if path.endswith(".headers") and isinstance(value, dict):
        return {name: HIDDEN if SECRET_HEADER.search(name) else text for name, text in value.items()}
    if isinstance(value, str):
        value = PASSWORD.sub(rf"\1:{HIDDEN}@", value)
    return HIDDEN if value and path.endswith(SECRET) else value


def _line(key: str, value: object, source: str) -> str:
    return f"{key} = {_toml(value)}".ljust(39) + f" # {source}"


def _toml(value: object) -> str:
    if isinstance(value, Struct):  # one of an array of tables: what was set of it
        fields = msgspec.structs.fields(value)
        set_to = {field.name: getattr(value, field.name) for field in fields}
        value = {field.name: set_to[field.name] for field in fields if field.required or set_to[field.name] != _usual(field)}
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }" if value else "{}"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def _usual(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
