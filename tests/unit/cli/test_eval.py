"""`penstock eval perplexity`: the number itself, computed another way, and mistakes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from penstock.app.perplexity import of_losses
from penstock.app.windows import windows_to_score
from penstock.cli import main
from penstock.files import BUILTIN, locate
from penstock.text.load import load_tokenizer

CONTEXT = 48
TEXT = "What is 17 + 25? 17 + 25 = 42. Paris is the capital of France. Sort these: 9 3 5. 3, 5, 9. Tell me a story about a fox. " * 12
CHATS = [
    [{"role": "user", "content": "What is 17 + 25?"}, {"role": "assistant", "content": "17 + 25 = 42."}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
        {"role": "user", "content": "And Italy?"},
        {"role": "assistant", "content": "The capital of Italy is Rome."},
    ],
]


def measured(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main(["eval", "perplexity", *flags, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def losses_by_transformers(windows: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
    """-log p of the tokens at the given positions."""
    transformers = pytest.importorskip("transformers")
    import torch

    model = transformers.AutoModelForCausalLM.from_pretrained(str(BUILTIN["penstock-mini"]), dtype=torch.float32)
    losses: list[float] = []
    with torch.inference_mode():
        for ids, positions in windows:
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            losses += [-float(logprobs[at - 1, ids[at]]) for at in positions]
    return losses


def test_a_text_by_the_definition_of_llama_cpp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Windows that do not overlap; of each the tokens from the middle on, but for the first of them, are scored."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    ids = load_tokenizer(locate("penstock-mini")).encode(TEXT)
    windows = [(ids[0], *ids[start + 1 : start + CONTEXT]) for start in range(0, len(ids) - CONTEXT + 1, CONTEXT)]  # <|bos|> first
    losses = losses_by_transformers([(window, tuple(range(CONTEXT // 2 + 1, CONTEXT))) for window in windows])
    found = measured(capsys, "--text", str(text), "--context", str(CONTEXT), "--weights", "float", "--kv-format", "fp32")
    assert found["tokens"] == len(losses) == len(windows) * (CONTEXT // 2 - 1)
    mean = sum(losses) / len(losses)
    assert found["perplexity"] == pytest.approx(math.exp(mean), rel=2e-3)
    spread = sum((loss - mean) ** 2 for loss in losses) / len(losses)
    assert found["error"] == pytest.approx(math.exp(mean) * math.sqrt(spread / (len(losses) - 1)), rel=5e-3)


def test_of_conversations_the_assistant_s_words_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in CHATS))
    files = locate("penstock-mini")
    windows = windows_to_score(files, chats, 256)
    tokenizer = load_tokenizer(files)
    said = [tokenizer.decode([window.token_ids[at] for at in window.scored], skip_special_tokens=False) for window in windows]
    answers = [[message["content"] for message in chat if message["role"] == "assistant"] for chat in CHATS]
    assert said == ["".join(f"{answer}<|end|>" for answer in each) for each in answers]
    losses = losses_by_transformers([(window.token_ids, window.scored) for window in windows])
    found = measured(capsys, "--text", str(chats), "--context", "256", "--weights", "float", "--kv-format", "fp32")
    assert (found["tokens"], found["windows"]) == (len(losses), 2)
    assert found["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=2e-3)


def test_fewer_bits_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps(chat) + "\n" for chat in CHATS))
    exact = measured(capsys, "--text", str(chats), "--weights", "float", "--kv-format", "fp32", "--context", "256")
    coarse = measured(capsys, "--text", str(chats), "--weights", "int4-channel", "--kv-format", "int4", "--context", "256")
    assert (coarse["weights"], coarse["kv_format"]) == ("int4-channel", "int4")
    assert coarse["perplexity"] != exact["perplexity"]


def test_what_people_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    assert main(["eval", "perplexity", "--text", str(text), "--context", str(CONTEXT), "--windows", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("perplexity ")
    assert "46 tokens scored in 2 windows of 48" in out


@pytest.mark.parametrize(
    ("file", "flags", "said"),
    [
        ("nowhere.txt", [], "nowhere.txt cannot be read"),
        ("short.txt", [], "tokens, a window takes 512"),
        ("short.txt", ["--context", "2"], "a context of 2 tokens is too short"),
        ("short.txt", ["--windows", "0"], "--windows is 0"),
        ("latin.txt", [], "is not UTF-8 at byte 3"),
        ("bad.jsonl", [], "bad.jsonl:2: not a conversation"),
        ("latin.jsonl", [], "latin.jsonl:1: not a conversation"),
        ("silent.jsonl", [], "has no word of an assistant"),
    ],
)
def test_mistakes_are_told(
    file: str, flags: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("too short")
    Path("latin.txt").write_bytes(b"caf\xe9 " * 900)
    Path("bad.jsonl").write_text(json.dumps({"messages": CHATS[0]}) + '\n{"prompt": "hello"}\n')
    Path("latin.jsonl").write_bytes(b'[{"role": "user", "content": "\xe9"}]\n')
    Path("silent.jsonl").write_text(json.dumps({"messages": CHATS[0][:1]}) + "\n")
    assert main(["eval", "perplexity", "--text", file, *flags]) == 2
    assert said in capsys.readouterr().err


def test_perplexity_of_certain_and_even_guesses() -> None:
    assert of_losses([0.0, 0.0]) == (1.0, 0.0)
    assert of_losses([math.log(4)] * 9) == pytest.approx((4.0, 0.0), abs=1e-6)
