"""From the config to an upstream."""

from __future__ import annotations

import sys

import pytest
from fakes.asking import upstream_at

from penstock.core import errors


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://there"])
async def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(errors.ConfigError, match="url"):
        async with upstream_at(url, models=["m"]):
            pass


@pytest.mark.parametrize("settings", [{"api_key": "sk-x\n"}, {"headers": {"x-a": "b\r\nx-c: d"}}, {"headers": {"": "b"}}])
async def test_what_no_header_can_hold_is_named(settings: dict[str, object]) -> None:
    with pytest.raises(errors.ConfigError, match="control character in "):
        async with upstream_at("http://127.0.0.1:9/v1", models=["m"], **settings):
            pass


@pytest.mark.parametrize(("kind", "module"), [("bedrock", "boto3"), ("vertex", "google.auth")])
async def test_an_extra_that_is_not_installed_says_how_to_install_it(kind: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(errors.MissingExtra, match=kind):
        async with upstream_at("", kind=kind, region="us-east-1", project="p", models=["m"]):
            pass


async def test_vertex_without_a_project_or_models_says_so() -> None:
    for settings, what in (({}, "project"), ({"api_key": "k"}, "models")):
        with pytest.raises(errors.ConfigError, match=what):
            async with upstream_at("", kind="vertex", **settings):
                pass
