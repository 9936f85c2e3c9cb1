"""Where a setting comes from, which one wins, and what a mistake in it says."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from penstock.core.config import EngineSpec, ModelSettings, ServerSettings
from penstock.core.errors import ConfigError
from penstock.core.settings import parse_size, resolve, served_name, with_api_keys


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        file = tmp_path / "penstock.toml"
        file.write_text(text)
        return file

    return write


def test_the_defaults_need_no_file() -> None:
    settings = resolve()
    assert settings.server == ServerSettings()
    assert settings.models == (ModelSettings(model="penstock-mini", name="penstock-mini", engine=EngineSpec()),)
    assert set(settings.sources.values()) == {"default"}


def test_later_layers_win_and_are_named(write) -> None:
    file = write('[server]\nhost = "file"\nport = 1\ndrain_s = 1\n')
    environment = {"PENSTOCK_SERVER__PORT": "2", "PENSTOCK_SERVER__DRAIN_S": "2", "HOME": "/"}
    settings = resolve(file=file, environment=environment, flags={"server.drain_s": "3"})
    assert (settings.server.host, settings.server.port, settings.server.drain_s) == ("file", 2, 3.0)
    names = ("host", "port", "drain_s", "deadline_s")
    assert [settings.sources[f"server.{name}"] for name in names] == [str(file), "PENSTOCK_SERVER__PORT", "--drain-s", "default"]


def test_a_model_has_its_own_engine_settings_over_the_shared_ones(write) -> None:
    file = write(
        '[engine]\nblock_size = 32\ndtype = "float32"\n[[models]]\nmodel = "a/b"\nengine = { block_size = 8 }\n[[models]]\nmodel = "c/d"\n'
    )
    first, second = resolve(file=file).models
    assert (first.engine.block_size, first.engine.dtype) == (8, "float32")
    assert (second.engine.block_size, second.engine.dtype) == (32, "float32")


def test_models_on_the_command_line_replace_those_of_the_file(write) -> None:
    settings = resolve(models=["x/y"], file=write('models = ["a/b", "c/d"]\n'))
    assert [model.name for model in settings.models] == ["x/y"]
    assert settings.sources["models.0.model"] == "command line"


def test_variables_that_kubernetes_sets_are_not_ours() -> None:
    settings = resolve(environment={"PENSTOCK_PORT": "tcp://10.0.0.1:80", "PENSTOCK_SERVICE_HOST": "10.0.0.1"})
    assert settings.server == ServerSettings()


@pytest.mark.parametrize(("text", "size"), [("2GiB", 2**31), ("512 MiB", 2**29), ("1.5kb", 1500), ("4096", 4096)])
def test_sizes_are_read_with_their_unit(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert resolve(flags={"engine.kv_bytes": text}).models[0].engine.kv_bytes == size


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("/models/qwen", "qwen"),
        ("./qwen", "qwen"),
        ("a/b/c", "c"),
        ("models/q4.gguf", "q4"),
        ("~/stories260K.bin", "stories260K"),
    ],
)
def test_a_path_is_served_by_its_last_part(model: str, name: str) -> None:
    assert served_name(model) == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[server]\nprot = 1", "'server.prot'.*did you mean 'server.port'"),
        ("[sever]\nport = 1", "'sever'.*did you mean 'server'"),
        ("port = 1", "'port'.*known: server, .*models"),
        ("server = 3", "server must be a table, got 3"),
        ('[server]\nport = "8000"', "server.port must be an integer from 0 to 65535, got '8000'"),
        ("[server]\nport = 70000", "got 70000"),
        ("[server]\nport = true", "server.port must be an integer"),
        ("[keys]\nrefresh_s = inf", "keys.refresh_s must be at most 100,000,000 seconds, got inf"),
        ("[server]\ndrain_s = 1e18", "server.drain_s must be at most"),
        ('[engine]\ndevice = "tpu"', 'engine.device must be "auto" or "cpu" or "cuda", got \'tpu\''),
        ('[engine]\nkv_bytes = "2 parsecs"', "a size such as 2GiB, got '2 parsecs'"),
        ("[engine]\nmax_model_len = 0", "engine.max_model_len must be an integer of at least 1"),
        ('[[models]]\nmodle = "x"', "'models.modle'.*did you mean 'models.model'"),
        ("[[models]]\nengine = { blocksize = 1 }", "did you mean 'engine.block_size'"),
        ('models = ["a/b", "a/b"]', "two models are served as 'a/b'"),
        ('models = "a/b"', "models must be a list"),
        ("port = = 1", "not valid TOML.*line 1"),
    ],
)
def test_a_mistake_names_the_setting_the_value_and_the_file(write, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        resolve(file=write(text))
    assert "penstock.toml" in str(caught.value) or "two models" in str(caught.value)


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_ENGINE__BLOCKSIZE.*did you mean 'engine.block_size'"):
        resolve(environment={"PENSTOCK_ENGINE__BLOCKSIZE": "8"})
    with pytest.raises(ConfigError, match="router.aliases must be a table, got '{fast' .from PENSTOCK_ROUTER__ALIASES"):
        resolve(environment={"PENSTOCK_ROUTER__ALIASES": "{fast"})
    with pytest.raises(ConfigError, match=r"engine.block_size.*got 'x' \(from PENSTOCK_ENGINE__BLOCK_SIZE\)"):
        resolve(environment={"PENSTOCK_ENGINE__BLOCK_SIZE": "x"})


def test_a_missing_file_says_that_none_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no config file .*leave --config out"):
        resolve(file=tmp_path / "absent.toml")


UPSTREAM = '[[upstreams]]\nname = "far"\nurl = "http://far/v1"\n'


def test_with_upstreams_alone_no_engine_is_started(write) -> None:
    settings = resolve(file=write(UPSTREAM))
    assert settings.models == ()
    assert [upstream.name for upstream in settings.upstreams] == ["far"]
    assert settings.sources["upstreams.0.kind"] == "default"
    assert [model.name for model in resolve(models=["penstock-mini"], file=write(UPSTREAM)).models] == ["penstock-mini"]


def test_an_upstream_s_key_is_read_from_the_environment_only_to_call_it(write) -> None:
    settings = resolve(file=write(UPSTREAM + 'api_key_env = "FAR_KEY"\n'))
    assert with_api_keys(settings, {"FAR_KEY": "sk-1"}).upstreams[0].api_key == "sk-1"
    with pytest.raises(ConfigError, match=r"'far' wants its key in \$FAR_KEY, which is not set"):
        with_api_keys(settings, {})


def test_what_config_shows_for_a_key_is_no_key(write) -> None:
    with pytest.raises(ConfigError, match=r"'far' has '\*\*\*' for a key"):
        with_api_keys(resolve(file=write(UPSTREAM + 'api_key = "***"\n')), {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[upstreams]]\nurl = "http://far"', "an upstream has no name"),
        (UPSTREAM + 'api_key = "a"\napi_key_env = "B"', "both api_key and api_key_env"),
        (UPSTREAM + 'kind = "openia"', 'must be "openai" or "anthropic" or "bedrock" or "vertex", got \'openia\''),
        (UPSTREAM + "idel_s = 3", "did you mean 'upstreams.idle_s'"),
        (UPSTREAM + UPSTREAM, "two models or upstreams are served as 'far'"),
        ("[upstreams]\nname = 1", "upstreams must be a list of tables"),
        ("[dispatch]\nhedge_after_s = 0", "dispatch.hedge_after_s must be a number above 0"),
        ("[router]\naliases = 3", "router.aliases must be a table"),
        ('[router]\ntiers = { easy = "a" }', 'router.tiers must be a table of "simple" or "medium" or "complex" or "reasoning", got'),
        ("[cache]\ndelta = 1", "cache.delta must be a number above 0 and below 1, got 1"),
    ],
)
def test_a_mistake_in_the_pipe_s_settings(write, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve(file=write(text))


def test_money_is_what_was_written(write) -> None:
    assert resolve(file=write("[prices]\nmachine_usd_per_hour = 0.1\n")).prices.machine_usd_per_hour == Decimal("0.1")
    assert resolve(environment={"PENSTOCK_PRICES__MACHINE_USD_PER_HOUR": "2.30"}).prices.machine_usd_per_hour == Decimal("2.30")
