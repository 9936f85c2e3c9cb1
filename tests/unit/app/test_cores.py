"""How engines of one server divide the cores."""

from __future__ import annotations

import pytest

from penstock.app.cores import share_cores, usable_cores
from penstock.core.config import EngineSpec, ModelSettings


def threads(models: list[ModelSettings], cores: int) -> list[object]:
    return [model.engine.threads for model in share_cores(models, cores)]


def test_one_engine_keeps_all_cores() -> None:
    assert threads([ModelSettings()], 8) == ["auto"]


def test_several_share_them_and_each_has_one() -> None:
    assert threads([ModelSettings(name="a"), ModelSettings(name="b")], 8) == [4, 4]
    assert threads([ModelSettings(name=name) for name in "abc"], 2) == [1, 1, 1]


def test_what_was_written_stays() -> None:
    assert threads([ModelSettings(engine=EngineSpec(threads=6)), ModelSettings(name="b")], 8) == [6, 4]


def test_cores_are_counted_as_torch_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert usable_cores() >= 1
