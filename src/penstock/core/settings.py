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

    [[upstreams]]
    name = "vllm"
    url = "http://localhost:8001/v1"

A value that a room does not know, or of the wrong type, is a `ConfigError` that names the setting and where it was written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Annotated, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from penstock.core.config import (
    DEFAULT_MODEL,
    CacheSettings,
    DispatchSettings,
    EmbeddingSettings,
    EngineSpec,
    GuardSettings,
    KeySettings,
    LedgerSettings,
    LimitSettings,
    ModelSettings,
    PageSettings,
    PriceSettings,
    RouterSettings,
    ServerSettings,
    TraceSettings,
    UpstreamSettings,
)
from penstock.core.errors import ConfigError, closest

SHARED: Mapping[str, type[Struct]] = {  # one table each, for the whole server
    "server": ServerSettings,
    "keys": KeySettings,
    "limits": LimitSettings,
    "ledger": LedgerSettings,
    "prices": PriceSettings,
    "router": RouterSettings,
    "dispatch": DispatchSettings,
    "cache": CacheSettings,
    "guard": GuardSettings,
    "embeddings": EmbeddingSettings,
    "trace": TraceSettings,
    "page": PageSettings,
}
ROOMS: Mapping[str, type[Struct]] = {**SHARED, "engine": EngineSpec}
MOST_S = 10**8  # three years; a clock of the system has no room for "inf"
HIDDEN = "***"  # what `penstock config` writes for a secret
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
    """A config file: settings by path ("server.port"), and one such table per model and upstream."""

    given: dict[str, Given] = {}
    models: tuple[dict[str, Given], ...] = ()
    upstreams: tuple[dict[str, Given], ...] = ()


class Settings(Struct, frozen=True, kw_only=True):
    """All that was resolved. `sources` names the origin of each value by its path, such as "models.0.engine.dtype"."""

    server: ServerSettings = ServerSettings()
    keys: KeySettings = KeySettings()
    limits: LimitSettings = LimitSettings()
    ledger: LedgerSettings = LedgerSettings()
    prices: PriceSettings = PriceSettings()
    router: RouterSettings = RouterSettings()
    dispatch: DispatchSettings = DispatchSettings()
    cache: CacheSettings = CacheSettings()
    guard: GuardSettings = GuardSettings()
    embeddings: EmbeddingSettings = EmbeddingSettings()
    trace: TraceSettings = TraceSettings()
    page: PageSettings = PageSettings()
    models: tuple[ModelSettings, ...] = ()
    upstreams: tuple[UpstreamSettings, ...] = ()
    sources: dict[str, str] = {}


def resolve(
    *,
    models: Sequence[str] = (),
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from all layers. `models` (from the command line) replace those of the file; `flags` are paths to text.

    Where neither names a model and the file has no upstreams, the built-in model is served.
    Raises ConfigError for an unknown key, a wrong type, a value out of bounds, two models of one name.
    """
    written = read_file(file) if file else Written()
    shell = read_environment(environment or {}) | {path: Given(text, _flag(path), is_text=True) for path, text in (flags or {}).items()}
    named = tuple({"model": Given(name, "command line")} for name in models)
    entries = named or written.models or (() if written.upstreams else ({},))
    base = {**written.given, **shell}
    layered = [{**written.given, **entry, **shell} for entry in entries]
    settings = Settings(
        **{room: _room(kind, room, base) for room, kind in SHARED.items()},  # type: ignore[arg-type]
        models=tuple(_model(entry) for entry in layered),
        upstreams=tuple(map(_upstream, written.upstreams)),
        sources=_sources(base, layered, written.upstreams),
    )
    _check_names([model.name for model in settings.models], "models")
    _check_names([*(model.name for model in settings.models), *(upstream.name for upstream in settings.upstreams)], "models or upstreams")
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
    models, upstreams = _list("models", document, path), _list("upstreams", document, path)
    given: dict[str, Given] = {}
    for room, table in document.items():
        given |= _table(room, table, str(path))
    return Written(
        given,
        tuple(_model_table(entry, str(path)) for entry in models),
        tuple(_upstream_table(entry, str(path)) for entry in upstreams),
    )


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


def _list(name: str, document: dict[str, object], path: Path) -> list[object]:
    entries = document.pop(name, [])
    if not isinstance(entries, list):
        raise ConfigError(f"{name} must be a list of tables, got {entries!r} in {path}", hint=f"write one [[{name}]] table for each")
    return entries


def _table(room: str, table: object, source: str) -> dict[str, Given]:
    if room not in ROOMS:
        raise _unknown(room, [*ROOMS, "models", "upstreams"], source)
    if not isinstance(table, dict):
        raise ConfigError(f"{room} must be a table, got {table!r} in {source}", hint=f"write its settings below [{room}]")
    return {_path(room, key, source): Given(value, source) for key, value in table.items()}


def _model_table(entry: object, source: str) -> dict[str, Given]:
    if isinstance(entry, str):
        return {"model": Given(entry, source)}
    if not isinstance(entry, dict):
        raise ConfigError(f"a model must be a name or a table, got {entry!r} in {source}", hint="write its settings below [[models]]")
    given: dict[str, Given] = {}
    for key, value in entry.items():
        if key not in MODEL_KEYS:
            raise _unknown(f"models.{key}", [f"models.{known}" for known in MODEL_KEYS], source)
        given |= _table("engine", value, source) if key == "engine" else {key: Given(value, source)}
    return given


def _upstream_table(entry: object, source: str) -> dict[str, Given]:
    if not isinstance(entry, dict):
        raise ConfigError(f"an upstream must be a table, got {entry!r} in {source}", hint="write its settings below [[upstreams]]")
    known = UpstreamSettings.__struct_fields__
    for key in entry:
        if key not in known:
            raise _unknown(f"upstreams.{key}", [f"upstreams.{field}" for field in known], source)
    return {f"upstreams.{key}": Given(value, source) for key, value in entry.items()}


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


def _upstream(given: Mapping[str, Given]) -> UpstreamSettings:
    if "upstreams.name" not in given:
        raise ConfigError("an upstream has no name", hint='write name = "…" in each [[upstreams]] table')
    upstream = _room(UpstreamSettings, "upstreams", given)
    if upstream.api_key_env and upstream.api_key:
        raise ConfigError(f"the upstream {upstream.name!r} has both api_key and api_key_env", hint="keep one of them")
    return upstream


def with_api_keys(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The settings with every key that `api_key_env` names. Raises ConfigError for a variable that is not set, and
    where a key is what `penstock config` shows instead of it."""
    for upstream in settings.upstreams:
        if HIDDEN in (upstream.api_key, *upstream.headers.values()):
            message = f"the upstream {upstream.name!r} has {HIDDEN!r} for a key: `penstock config` shows none"
            raise ConfigError(message, hint="write the key in its place, or use api_key_env")
        if upstream.api_key_env and not environment.get(upstream.api_key_env):
            message = f"the upstream {upstream.name!r} wants its key in ${upstream.api_key_env}, which is not set"
            raise ConfigError(message, hint=f"export {upstream.api_key_env}=…, or take api_key_env out where no key is needed")
    keyed = (
        msgspec.structs.replace(upstream, api_key=environment[upstream.api_key_env]) if upstream.api_key_env else upstream
        for upstream in settings.upstreams
    )
    return msgspec.structs.replace(settings, upstreams=tuple(keyed))


def served_name(model: str) -> str:
    """The name that clients ask for: a Hugging Face id as it is, a path's last part without its ending."""
    path = PurePath(model)
    is_path = path.is_absolute() or model.startswith((".", "~")) or path.suffix in (".gguf", ".bin") or len(path.parts) > 2
    return (path.stem if path.suffix in (".gguf", ".bin") else path.name) if is_path else model


def _room(kind: type[Room], room: str, given: Mapping[str, Given]) -> Room:
    types = get_type_hints(kind, include_extras=True)
    found = {field: given[f"{room}.{field}"] for field in kind.__struct_fields__ if f"{room}.{field}" in given}
    return kind(**{field: _read(f"{room}.{field}", value, types[field]) for field, value in found.items()})


def _read(path: str, given: Given, kind: object) -> object:
    """A value, or the tables of an array of them."""
    entry = next((of for of in get_args(kind) if isinstance(of, type) and issubclass(of, Struct)), None)
    return _convert(path, given, kind) if entry is None else _tables(path, given, entry)


def _tables(path: str, given: Given, kind: type[Room]) -> list[Room]:
    """Each table of the array at `path` as a `kind`; errors name the table by its number, from 1, and the setting."""
    known = kind.__struct_fields__
    entries = _decoded(given)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        message = f"{path} must be a list of tables, got {given.value!r} (from {given.source})"
        raise ConfigError(message, hint=f"write one [[{path}]] table for each")
    rooms: list[Room] = []
    for number, entry in enumerate(entries, 1):
        for key in entry:
            if key not in known:
                raise _unknown(f"{path}.{key}", [f"{path}.{field}" for field in known], f"table {number} of {given.source}")
        table = {f"{path}.{key}": Given(value, f"{given.source}, table {number}") for key, value in entry.items()}
        missing = next((field.name for field in msgspec.structs.fields(kind) if field.required and field.name not in entry), None)
        if missing is not None:
            raise ConfigError(f"table {number} of {path} has no {missing} (in {given.source})", hint=f'write {missing} = "…"')
        rooms.append(_room(kind, path, table))
    return rooms


def _sources(base: Mapping[str, Given], models: Sequence[Mapping[str, Given]], upstreams: Sequence[Mapping[str, Given]]) -> dict[str, str]:
    shared = [f"{room}.{field}" for room, kind in SHARED.items() for field in kind.__struct_fields__]
    paths = {path: (path, base) for path in shared}
    for i, given in enumerate(upstreams):
        paths |= {f"upstreams.{i}.{field}": (f"upstreams.{field}", given) for field in UpstreamSettings.__struct_fields__}
    for i, given in enumerate(models):
        keys = ["model", "name", *(f"engine.{field}" for field in EngineSpec.__struct_fields__)]
        paths |= {f"models.{i}.{key}": (key, given) for key in keys}
    return {path: given[key].source if key in given else "default" for path, (key, given) in paths.items()}


def _convert(path: str, given: Given, kind: object) -> object:
    try:
        value = given.value
        if path.endswith("_bytes") and isinstance(value, str) and value != "auto":
            value = parse_size(value)
        if isinstance(value, float) and _takes_decimal(kind):
            value = str(value)  # 0.1 as it was written, not as the nearest binary number
        if given.is_text and isinstance(value, str) and value[:1] in "{[":
            value = msgspec.json.decode(value)
        found = msgspec.convert(value, kind, strict=not given.is_text)
    except (msgspec.DecodeError, ValueError):
        size = " or a size such as 2GiB" if path.endswith("_bytes") else ""
        raise ConfigError(f"{path} must be {describe(kind)}{size}, got {given.value!r} (from {given.source})") from None
    if path.endswith("_s") and isinstance(found, float) and found > MOST_S:
        raise ConfigError(f"{path} must be at most {MOST_S:,} seconds, got {given.value!r} (from {given.source})")
    return found


def _decoded(given: Given) -> object:
    """The value; of a text from a shell, the JSON that it is."""
    try:
        return msgspec.json.decode(given.value) if given.is_text and isinstance(given.value, str) else given.value
    except (msgspec.DecodeError, ValueError):
        return given.value


def _takes_decimal(kind: object) -> bool:
    return kind is Decimal or any(map(_takes_decimal, get_args(kind)))


def describe(kind: object) -> str:
    """A type in words: 'an integer of at least 1 or "auto"'."""
    return " or ".join(_phrases(kind))


def _phrases(kind: object) -> Iterator[str]:
    if get_origin(kind) is Annotated:
        bare, *limits = get_args(kind)
        yield " ".join([*_phrases(bare), *(_limits(limit) for limit in limits)])
    elif get_origin(kind) is Literal:
        yield from (f'"{choice}"' for choice in get_args(kind))
    elif get_origin(kind) in (dict, list):
        first = get_args(kind)[0]  # of a table its keys, of a list what is in it
        of = f" of {describe(first)}" if get_origin(first) is Literal else ""
        yield f"a table{of}" if get_origin(kind) is dict else f"a list{of}"
    elif get_args(kind):
        for option in get_args(kind):
            yield from _phrases(option)
    else:
        names = {int: "an integer", float: "a number", Decimal: "a number", bool: "true or false", str: "a text", type(None): "nothing"}
        yield names[kind]  # type: ignore[index]


def _limits(limit: msgspec.Meta) -> str:
    if limit.ge is not None and limit.le is not None:
        return f"from {limit.ge} to {limit.le}"
    if limit.gt is not None:
        return f"above {limit.gt}" + (f" and below {limit.lt}" if limit.lt is not None else "")
    if limit.min_length is not None:
        return f"of at least {limit.min_length} character"
    return f"of at least {limit.ge}" + (f" and below {limit.lt}" if limit.lt is not None else "")


def _check_names(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two {what} are served as {name!r}", hint="give each entry a `name` of its own")


def _flag(path: str) -> str:
    return "--" + path.partition(".")[2].replace("_", "-")
