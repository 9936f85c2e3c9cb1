"""Every config on the page about upstreams is one that Penstock takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.core.settings import resolve, with_api_keys

PAGE = Path(__file__).resolve().parents[2] / "docs" / "upstreams.md"
CONFIGS = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("config", CONFIGS, ids=[re.findall(r'name = "([^"]+)"', config)[0] for config in CONFIGS])
def test_a_config_on_the_page_is_taken(config: str, tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text(config, encoding="utf-8")
    environment = dict.fromkeys(re.findall(r'api_key_env = "(\w+)"', config), "key")
    settings = with_api_keys(resolve(file=path), environment)
    assert len(settings.upstreams) == config.count("[[upstreams]]") > 0
    assert not settings.models
    for upstream in settings.upstreams:
        assert bool(upstream.api_key) == bool(upstream.api_key_env)
        assert upstream.url or upstream.kind != "openai"


def test_every_server_of_the_list_has_one() -> None:
    names = {name for config in CONFIGS for name in re.findall(r'name = "([^"]+)"', config)}
    assert names >= {
        "vllm", "sglang", "tgi", "nim", "tensorrt-llm", "llama-cpp", "ollama", "lmdeploy", "openvino", "openai", "anthropic", "bedrock",
        "vertex",
    }  # fmt: skip
