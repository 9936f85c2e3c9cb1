"""From conversations to batches: encode, mark what the assistant says, pack rows, keep documents apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.curriculum.dialogue import Conversation, converse
from training.curriculum.turn import called
from training.tokenizer import ASSISTANT, BOS, END, SPECIAL, SYSTEM, USER

TURNS = (1, 2, 3, 4, 5, 6)
TURN_SHARES = (46, 20, 15, 9, 6, 4)
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids, and for each whether the model is to learn to say it."""

    ids: list[int]
    said: list[bool]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """ids [rows, length]; mask [rows, 1, length, length]; places and targets [learned], of fixed size."""

    ids: Tensor
    mask: Tensor
    places: Tensor
    targets: Tensor


def encode(tokenizer: Tokenizer, conversation: Conversation, name: str) -> Document:
    """The conversation with the model called ``name`` as the chat template lays it out; the answers and their ends are learned."""
    special = {token: index for index, token in enumerate(SPECIAL)}
    ids, said = [special[BOS]], [False]

    def append(role: str, text: str) -> None:
        tokens = tokenizer.encode(called(text.strip(), name), add_special_tokens=False).ids
        ids.extend([special[role], *tokens, special[END]])
        said.extend([False, *[role == ASSISTANT] * (len(tokens) + 1)])

    if conversation.system is not None:
        append(SYSTEM, conversation.system)
    for turn in conversation.turns:
        append(USER, turn.user)
        append(ASSISTANT, turn.answer)
    return Document(ids, said)


def plain(tokenizer: Tokenizer, rng: Random, name: str) -> Document:
    """An answer without any chat around it, so that a bare prompt is continued sensibly."""
    text = called(converse(rng, 1, "train").turns[0].answer, name)
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    return Document([SPECIAL.index(BOS), *tokens, SPECIAL.index(END)], [False, *[True] * (len(tokens) + 1)])


def documents(tokenizer: Tokenizer, rng: Random, length: int, name: str) -> Iterator[Document]:
    """Training conversations of at most ``length`` + 1 tokens; the longer the rows, the more turns."""
    stretch = length > 512
    while True:
        turns = rng.randint(6, 60) if stretch and rng.random() < 0.6 else rng.choices(TURNS, TURN_SHARES)[0]
        document = plain(tokenizer, rng, name) if rng.random() < 0.01 else encode(tokenizer, converse(rng, turns, "train"), name)
        if len(document) <= length + 1:
            yield document


class Packer:
    """Fills rows of ``length`` with whole documents, taking from a small pool what fits best."""

    def __init__(self, source: Iterator[Document], rows: int, length: int, pool: int = 64) -> None:
        self.source, self.rows, self.length = source, rows, length
        self.pool = [next(source) for _ in range(pool)]

    def row(self) -> list[Document]:
        chosen: list[Document] = []
        room = self.length
        while fitting := [i for i, document in enumerate(self.pool) if len(document) - 1 <= room]:
            # the first document of a row is the oldest in the pool, so that none waits for ever
            best = max(fitting, key=lambda i: len(self.pool[i])) if chosen else fitting[0]
            document = self.pool.pop(best)
            self.pool.append(next(self.source))
            chosen.append(document)
            room -= len(document) - 1
        return chosen

    def batch(self) -> Batch:
        """The next ``rows`` × ``length`` tokens; five eighths of the places can be learned."""
        ids = torch.full((self.rows, self.length), SPECIAL.index(END))
        targets = torch.full((self.rows, self.length), IGNORED)
        owner = torch.full((self.rows, self.length), -1)
        for r in range(self.rows):
            at = 0
            for n, document in enumerate(self.row()):
                end = at + len(document) - 1
                ids[r, at:end] = torch.tensor(document.ids[:-1])
                learned = [t if s else IGNORED for t, s in zip(document.ids[1:], document.said[1:], strict=True)]
                targets[r, at:end] = torch.tensor(learned)
                owner[r, at:end] = n
                at = end
        return Batch(ids, visible(owner), *learned_places(targets, self.rows * self.length * 5 // 8))


def visible(owner: Tensor) -> Tensor:
    """Who may look at whom: earlier places of the same document. [rows, length] → [rows, 1, length, length]."""
    same = owner.unsqueeze(2) == owner.unsqueeze(1)
    return (same & torch.ones_like(same).tril()).unsqueeze(1)


def learned_places(targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Exactly ``count`` flat places that carry a target, padded with ignored ones; a fixed size suits the compiler."""
    flat = targets.flatten()
    places = (flat != IGNORED).nonzero().squeeze(1)[:count]
    padded = torch.zeros(count, dtype=torch.long)
    padded[: len(places)] = places
    wanted = torch.full((count,), IGNORED)
    wanted[: len(places)] = flat[places]
    return padded, wanted
