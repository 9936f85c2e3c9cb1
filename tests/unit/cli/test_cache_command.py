"""`penstock cache` over a store of its own, and where there is none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cached import entry, open_store

from penstock.cli import main


def config(folder: Path, store: str) -> list[str]:
    path = folder / "penstock.toml"
    path.write_text(f'[server]\ndata_dir = "{folder}"\n[cache]\nstore = "{store}"\n')
    return ["--config", str(path)]


def test_answers_are_counted_and_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SERVER__DATA_DIR", str(tmp_path))

    async def fill() -> None:
        async with open_store("sqlite", tmp_path, "", lambda: 4e9) as store:
            for tenant in ("alice", "bob", "carol"):
                await store.put(entry(tenant, tenant=tenant))

    asyncio.run(fill())
    flags = config(tmp_path, "sqlite")
    for command in (["clear", "--tenant", "alice"], ["stats"], ["clear"], ["stats"]):
        assert main(["cache", *command, *flags]) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith(("1", "2", "answers"))] == [
        "1 answer forgotten",
        "answers  2, of them 0 found by meaning, too",
        "2 answers forgotten",
        "answers  0, of them 0 found by meaning, too",
    ]


@pytest.mark.parametrize(
    ("store", "code", "told"),
    [
        ("memory", 2, "only the running server"),
        ("redis://127.0.0.1:1/0", 1, "cannot be reached"),
        ("mysql://x", 2, "cache.store is not known"),
    ],
)
def test_what_cannot_be_looked_into_says_so(store: str, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "stats", *config(tmp_path, store)]) == code
    assert told in capsys.readouterr().err
