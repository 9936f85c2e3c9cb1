"""docs/api.md: its examples run, and its tables have every field."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.wire.chat import ChatFields
from penstock.gateway.wire.completions import CompletionFields
from penstock.gateway.wire.responses import ResponsesFields
from penstock.upstream.fake import FakeUpstream
from tests.wire.test_clients import Turns

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
HERE = "http://127.0.0.1:8000"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


@pytest.mark.parametrize(("title", "fields"), [("Chat", ChatFields), ("Responses", ResponsesFields)])
def test_every_field_is_on_the_page(title: str, fields: Any) -> None:
    rows = re.findall(r"^\| (`.+?) \|", section(title), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(fields.__struct_fields__)


def test_what_completions_have_beyond_chats_is_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("Completions"), re.MULTILINE)
    assert set(rows) == set(CompletionFields.__struct_fields__) - set(ChatFields.__struct_fields__) | {"logprobs"}


def test_the_refusal_on_the_page_is_what_comes(make_server: Callable[..., Any]) -> None:
    (command,) = blocks("sh")
    answer = subprocess.run(command.replace(HERE, make_server().url), shell=True, capture_output=True, check=True)
    assert json.loads(answer.stdout) == json.loads(blocks("json")[0])


class Both(FakeUpstream):
    """Says hello; where there are tools, calls one and answers."""

    def __init__(self, model: str) -> None:
        super().__init__(model=model)
        self._turns = Turns()

    def stream(self, request: Any, route: Any, tab: Any) -> Any:
        return (self._turns if request.tools else super()).stream(request, route, tab)


def test_the_examples_run(make_server: Callable[..., Any]) -> None:
    pytest.importorskip("langchain_openai")
    server = make_server(upstream=Both("penstock-mini"))
    script = "\n".join(blocks("python")).replace(HERE, server.url).replace("gpt-oss", "penstock-mini")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Hello, world.") == 7
    assert "'auto' stands for 'penstock-mini'" in ran.stdout
    assert "Forty-two." in ran.stdout
