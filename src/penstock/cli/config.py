"""`penstock config`: the resolved settings as a TOML file, each with where it came from."""

from __future__ import annotations

import argparse
import json

from msgspec import Struct

from penstock.cli.settings import read
from penstock.core.settings import Settings


def run(arguments: argparse.Namespace) -> int:
    settings = read(arguments, arguments.models)
    lines = ["[server]", *_table(settings.server, "server", settings)]
    for i, model in enumerate(settings.models):
        lines += ["", "[[models]]", *(_line(key, getattr(model, key), settings.sources[f"models.{i}.{key}"]) for key in ("model", "name"))]
        lines += ["", "[models.engine]", *_table(model.engine, f"models.{i}.engine", settings)]
    print("\n".join(lines))
    return 0


def _table(room: Struct, prefix: str, settings: Settings) -> list[str]:
    return [_line(field, getattr(room, field), settings.sources[f"{prefix}.{field}"]) for field in room.__struct_fields__]


def _line(key: str, value: object, source: str) -> str:
    return f"{key} = {json.dumps(value)}".ljust(36) + f"# {source}"
