"""Where settings come from: default, file, environment, flag. The later wins, and each value remembers its source.

    penstock.toml         environment                    flag
    [server]              PENSTOCK_SERVER__PORT=9000     --port 9000
    port = 9000

    [engine]              holds for every model; a [[models]] entry's own `engine` table goes before it
    kv_bytes = "2GiB"

    [[models]]
    model = "Qwen/Qwen2.5-0.5B-Instruct"
    name = "qwen"
    engine = { max_model_len = 4096 }

A value that a room does not know, or of the wrong type, is a `ConfigError` that names the setting and where it was written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from penstock.core.config import DEFAULT_MODEL, EngineSpec, ModelSettings, ServerSettings
from penstock.core.errors import ConfigError, closest

ROOMS: Mapping[str, type[Struct]] = {"server": ServerSettings, "engine": EngineSpec}
MODEL_KEYS = ("model", "name", "engine")
UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")

Room = TypeVar("Room", bound=Struct)


class Given(Struct, frozen=True):
    """A value as the user wrote it and where. Text from a shell is read as the type that the setting has."""

    value: object
    source: str
    is_text: bool = False


class Written(Struct, frozen=True):
    """A config file: settings by path ("server.port"), and one such table per model."""

    given: dict[str, Given] = {}
    models: tuple[dict[str, Given], ...] = ()


class Settings(Struct, frozen=True, kw_only=True):
    """All that was resolved. `sources` names the origin of each value by its path, such as "models.0.engine.dtype"."""

    server: ServerSettings
    models: tuple[ModelSettings, ...]
    sources: dict[str, str]


def resolve(
    *,
    models: Sequence[str] = (),
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from all layers. `models` (from the command line) replace those of the file; `flags` are paths to text.

    Raises ConfigError for an unknown key, a wrong type, a value out of bounds, two models of one name.
    """
    written = read_file(file) if file else Written()
    shell = read_environment(environment or {}) | {path: Given(text, _flag(path), is_text=True) for path, text in (flags or {}).items()}
    entries = tuple({"model": Given(name, "command line")} for name in models) or written.models or ({},)
    layered = [{**written.given, **entry, **shell} for entry in entries]
    settings = Settings(
        server=_room(ServerSettings, "server", layered[0]),
        models=tuple(_model(entry) for entry in layered),
        sources=_sources(layered),
    )
    _check_names([model.name for model in settings.models])
    return settings


def read_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """The settings in PENSTOCK_ROOM__KEY variables. The double underscore keeps clear of the variables that Kubernetes sets
    for a service called penstock (PENSTOCK_PORT=tcp://…)."""
    found = {}
    for variable, text in environment.items():
        if variable.startswith("PENSTOCK_") and "__" in variable:
            room, key = variable.removeprefix("PENSTOCK_").lower().split("__", 1)
            found[_path(room, key, variable)] = Given(text, variable, is_text=True)
    return found


def read_file(path: Path) -> Written:
    """The settings in one TOML file, their names checked."""
    document = _parse(path)
    models = document.pop("models", [])
    given: dict[str, Given] = {}
    for room, table in document.items():
        given |= _table(room, table, str(path))
    if not isinstance(models, list):
        raise ConfigError(f"models must be a list of tables, got {models!r} in {path}", hint="write one [[models]] table per model")
    return Written(given, tuple(_model_table(entry, str(path)) for entry in models))


def parse_size(text: str) -> int:
    """Bytes of "2GiB", "512 MiB", "1.5GB" or plain digits. Raises ValueError."""
    match = SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in UNITS:
        raise ValueError(f"not a size: {text!r}")
    return int(float(match[1]) * UNITS[match[2].lower()])


def _parse(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {path}", hint="the defaults need none; leave --config out to use them") from None
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _table(room: str, table: object, source: str) -> dict[str, Given]:
    if room not in ROOMS:
        raise _unknown(room, [*ROOMS, "models"], source)
    if not isinstance(table, dict):
        raise ConfigError(f"{room} must be a table, got {table!r} in {source}", hint=f"write its settings below [{room}]")
    return {_path(room, key, source): Given(value, source) for key, value in table.items()}


def _model_table(entry: object, source: str) -> dict[str, Given]:
    if isinstance(entry, str):
        return {"model": Given(entry, source)}
    if not isinstance(entry, dict):
        raise ConfigError(f"a model must be a name or a table, got {entry!r} in {source}")
    given: dict[str, Given] = {}
    for key, value in entry.items():
        if key not in MODEL_KEYS:
            raise _unknown(f"models.{key}", [f"models.{known}" for known in MODEL_KEYS], source)
        given |= _table("engine", value, source) if key == "engine" else {key: Given(value, source)}
    return given


def _path(room: str, key: str, source: str) -> str:
    if room not in ROOMS:
        raise _unknown(room, ROOMS, source)
    known = ROOMS[room].__struct_fields__
    if key not in known:
        raise _unknown(f"{room}.{key}", [f"{room}.{field}" for field in known], source)
    return f"{room}.{key}"


def _unknown(path: str, known: Sequence[str] | Mapping[str, object], source: str) -> ConfigError:
    near = closest(path, known)
    return ConfigError(f"unknown setting {path!r} in {source}", hint=f"did you mean {near!r}?" if near else f"known: {', '.join(known)}")


def _model(given: Mapping[str, Given]) -> ModelSettings:
    model = _convert("models.model", given.get("model", Given(DEFAULT_MODEL, "default")), str)
    name = _convert("models.name", given.get("name", Given(served_name(str(model)), "default")), str)
    return ModelSettings(model=str(model), name=str(name), engine=_room(EngineSpec, "engine", given))


def served_name(model: str) -> str:
    """The name that clients ask for: a Hugging Face id as it is, a path's last part without its ending."""
    path = PurePath(model)
    is_path = path.is_absolute() or model.startswith((".", "~")) or path.suffix in (".gguf", ".bin") or len(path.parts) > 2
    return (path.stem if path.suffix in (".gguf", ".bin") else path.name) if is_path else model


def _room(kind: type[Room], room: str, given: Mapping[str, Given]) -> Room:
    types = get_type_hints(kind, include_extras=True)
    found = {field: given[f"{room}.{field}"] for field in kind.__struct_fields__ if f"{room}.{field}" in given}
    return kind(**{field: _convert(f"{room}.{field}", value, types[field]) for field, value in found.items()})


def _sources(layered: Sequence[Mapping[str, Given]]) -> dict[str, str]:
    paths = {f"server.{field}": (f"server.{field}", layered[0]) for field in ServerSettings.__struct_fields__}
    for i, given in enumerate(layered):
        keys = ["model", "name", *(f"engine.{field}" for field in EngineSpec.__struct_fields__)]
        paths |= {f"models.{i}.{key}": (key, given) for key in keys}
    return {path: given[key].source if key in given else "default" for path, (key, given) in paths.items()}


def _convert(path: str, given: Given, kind: object) -> object:
    try:
        value = given.value
        if path.endswith("_bytes") and isinstance(value, str) and value != "auto":
            value = parse_size(value)
        return msgspec.convert(value, kind, strict=not given.is_text)
    except (msgspec.ValidationError, ValueError):
        size = " or a size such as 2GiB" if path.endswith("_bytes") else ""
        raise ConfigError(f"{path} must be {describe(kind)}{size}, got {given.value!r} (from {given.source})") from None


def describe(kind: object) -> str:
    """A type in words: 'an integer of at least 1 or "auto"'."""
    return " or ".join(_phrases(kind))


def _phrases(kind: object) -> Iterator[str]:
    if get_origin(kind) is Annotated:
        bare, *limits = get_args(kind)
        yield " ".join([*_phrases(bare), *(_limits(limit) for limit in limits)])
    elif get_origin(kind) is Literal:
        yield from (f'"{choice}"' for choice in get_args(kind))
    elif get_args(kind):
        for option in get_args(kind):
            yield from _phrases(option)
    else:
        yield {int: "an integer", float: "a number", bool: "true or false", str: "a text"}[kind]  # type: ignore[index]


def _limits(limit: msgspec.Meta) -> str:
    if limit.ge is not None and limit.le is not None:
        return f"from {limit.ge} to {limit.le}"
    return f"of at least {limit.ge}" + (f" and below {limit.lt}" if limit.lt is not None else "")


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models are served as {name!r}", hint="give each [[models]] entry a `name` of its own")


def _flag(path: str) -> str:
    return "--" + path.partition(".")[2].replace("_", "-")
