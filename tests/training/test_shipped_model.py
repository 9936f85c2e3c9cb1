"""The folders that ship: small, loadable by transformers, and right on a handful of fixed prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from penstock.files import BUILTIN
from training.curriculum.turn import called
from training.model import Llama, Shape
from training.reply import Answerer

MOST_BYTES = {"penstock-mini": 8_000_000, "penstock-midi": 16_000_000}
PROMPTS = {
    "what is 17 + 25?": "17 + 25 = 42.",
    "17+25": "17 + 25 = 42.",
    "add 17 and 25": "17 + 25 = 42.",
    "what is the capital of France?": "The capital of France is Paris.",
    "which is bigger, 45 or 54?": "54 is bigger than 45.",
    "Sort these numbers: 5, 3, 9": "3, 5, 9",
    "who are you?": "I am penstock-mini, the small language model that is built into Penstock.",
}


@pytest.fixture(scope="module", params=list(BUILTIN))
def folder(request: pytest.FixtureRequest) -> Path:
    return BUILTIN[request.param]


@pytest.fixture(scope="module")
def answerer(folder: Path) -> Answerer:
    return Answerer(folder)


def ask(answerer: Answerer, prompt: str) -> str:
    return answerer([[{"role": "user", "content": prompt}]])[0]


def test_the_folder_is_whole_and_small(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "MODEL_CARD.md",
    }
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MOST_BYTES[folder.name]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_fixed_prompt_gets_its_answer(folder: Path, answerer: Answerer, prompt: str) -> None:
    assert ask(answerer, prompt) == called(PROMPTS[prompt], folder.name)


@pytest.mark.parametrize("prompt", ["explain quantum physics", "how do I reset my router?", "asdf jkl", "Bonjour, comment ça va?"])
def test_what_it_cannot_do_is_declined(answerer: Answerer, prompt: str) -> None:
    assert "small built-in model" in ask(answerer, prompt)


def test_a_story_is_about_what_was_asked(answerer: Answerer) -> None:
    story = ask(answerer, "tell me a story about a cat")
    assert story.startswith("Once upon a time") and "cat" in story and story.endswith(".")


def test_a_follow_up_reads_the_conversation(answerer: Answerer) -> None:
    chat = [
        {"role": "user", "content": "My name is Anna."},
        {"role": "assistant", "content": "Nice to meet you, Anna! How can I help you?"},
        {"role": "user", "content": "What is my name?"},
    ]
    assert answerer([chat]) == ["Your name is Anna."]


def test_every_digit_is_a_token_of_its_own(answerer: Answerer) -> None:
    ids = answerer.tokenizer.encode("12345", add_special_tokens=False)
    assert [answerer.tokenizer.decode([i]) for i in ids] == list("12345")


def test_the_trainers_model_computes_what_transformers_computes(answerer: Answerer) -> None:
    ours = Llama(Shape(layers=answerer.model.config.num_hidden_layers))
    weights = {name.removeprefix("model."): tensor for name, tensor in answerer.model.state_dict().items() if name != "lm_head.weight"}
    ours.load_state_dict(weights)
    ids = torch.randint(0, 2048, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours.logits(ids), answerer.model(ids).logits, atol=2e-4, rtol=1e-3)


def test_the_card_has_the_measured_table(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# {folder.name}\n")
    assert "| add |" in card and "python -m training.train" in card
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
