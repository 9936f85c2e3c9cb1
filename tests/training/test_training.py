"""What the trainer rests on: the layout of a conversation, rows that keep documents apart, the schedule, Muon."""

from __future__ import annotations

from random import Random

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from training.batches import IGNORED, Packer, documents, encode, learned_places, visible
from training.curriculum.dialogue import converse
from training.curriculum.turn import MINI
from training.evaluate import messages_of
from training.model import Llama, Shape
from training.optim import orthogonalize
from training.tokenizer import BOS, CHAT_TEMPLATE, END, PAD, train_tokenizer
from training.train import rate_at


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    rng = Random(0)
    texts = [text for _ in range(300) for turn in converse(rng, 1, "train").turns for text in (turn.user, turn.answer)]
    return train_tokenizer(texts, 600)


def test_a_conversation_is_encoded_as_the_chat_template_lays_it_out(tokenizer: Tokenizer) -> None:
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=END, pad_token=PAD)
    for seed in range(20):
        conversation = converse(Random(seed), 3, "train")
        document = encode(tokenizer, conversation, MINI)
        messages = [*messages_of(conversation), {"role": "assistant", "content": conversation.turns[-1].answer}]
        text = wrapped.apply_chat_template(messages, chat_template=CHAT_TEMPLATE, tokenize=False)
        assert tokenizer.encode(text, add_special_tokens=False).ids == document.ids


def test_only_answers_and_their_ends_are_learned(tokenizer: Tokenizer) -> None:
    conversation = converse(Random(1), 2, "train")
    document = encode(tokenizer, conversation, MINI)
    said = [i for i, learned in zip(document.ids, document.said, strict=True) if learned]
    text = tokenizer.decode(said, skip_special_tokens=False)
    assert text == "".join(turn.answer + END for turn in conversation.turns)


def test_digits_are_never_merged(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("2024 is 1999", add_special_tokens=False).tokens.count("9") == 3


def test_a_document_sees_its_own_past_alone() -> None:
    mask = visible(torch.tensor([[0, 0, 1, 1]]))[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_learned_places_have_a_fixed_size() -> None:
    targets = torch.tensor([[IGNORED, 5, IGNORED], [7, IGNORED, 9]])
    places, wanted = learned_places(targets, 5)
    assert places.tolist()[:3] == [1, 3, 5] and wanted.tolist() == [5, 7, 9, IGNORED, IGNORED]
    assert learned_places(targets, 2)[1].tolist() == [5, 7]


def test_a_batch_is_the_same_from_the_same_seed(tokenizer: Tokenizer) -> None:
    batches = [Packer(documents(tokenizer, Random(5), 256, MINI), rows=2, length=256, pool=8).batch() for _ in range(2)]
    assert torch.equal(batches[0].ids, batches[1].ids) and torch.equal(batches[0].mask, batches[1].mask)


def test_packed_documents_are_scored_as_if_alone() -> None:
    torch.manual_seed(0)
    model = Llama(Shape(vocabulary=64, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, positions=32))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ids = torch.randint(0, 64, (1, 12))
    packed = model(ids, visible(torch.tensor([[0] * 5 + [1] * 7])))
    alone = model(ids[:, 5:], visible(torch.zeros(1, 7)))
    torch.testing.assert_close(packed[:, 5:], alone, atol=1e-4, rtol=1e-4)


def test_the_rate_warms_up_holds_and_decays() -> None:
    assert rate_at(0.0) < 0.2 and rate_at(0.3) == 1.0 and rate_at(1.0) == 0.0
    assert rate_at(0.7) > rate_at(0.9) > 0


@pytest.mark.parametrize("size", [(8, 8), (8, 20), (20, 8)])
def test_muon_gives_every_direction_about_the_same_length(size: tuple[int, int]) -> None:
    stack = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    lengths = torch.linalg.svdvals(orthogonalize(stack, torch.float32))
    assert lengths.min() > 0.3 and lengths.max() < 1.4
