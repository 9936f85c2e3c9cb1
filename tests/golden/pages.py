"""Runs a decoder step by step on a scattered paged cache, as the engine would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from penstock.engine.kernels.kv import KVCache
from penstock.engine.kernels.protocol import AttentionInputs
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.load import load_model
from penstock.files import ModelFiles

BLOCK_SIZE = 4


def files_of(folder: Path) -> ModelFiles:
    return ModelFiles(str(folder), "safetensors", folder)


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, max_model_len: int | None = None) -> Decoder:
    return load_model(
        files_of(folder),
        device=device,
        dtype=dtype,
        kernels=ReferenceKernels(),
        progress=lambda stage, done, total: None,
        max_model_len=max_model_len,
    )


class Pages:
    """Sequences of one decoder, their blocks in random order; the blocks that no sequence holds are full of rubbish."""

    def __init__(self, decoder: Decoder, num_seqs: int, max_len: int) -> None:
        self.decoder = decoder
        width = -(-max_len // BLOCK_SIZE)
        num_blocks = num_seqs * width + 3
        self._kv = KVCache.allocate(decoder.config, num_blocks, BLOCK_SIZE, decoder.dtype, decoder.device)
        for cache in (*self._kv.keys, *self._kv.values):
            cache.fill_(1e4)
        scattered = torch.randperm(num_blocks - 1, generator=torch.Generator().manual_seed(0)) + 1  # block 0 pads tables: held by none
        self._tables = scattered[: num_seqs * width].view(num_seqs, width).to(decoder.device)
        self._lens = [0] * num_seqs

    def step(self, new: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
        """Compute `new` tokens of some sequences in one step -> the logits of each, [tokens, vocab]."""
        hidden = self.decoder.forward(self._ids(new), self._inputs(new), self._kv)
        logits = self.decoder.logits(hidden).cpu()
        return dict(zip(new, logits.split([len(tokens) for tokens in new.values()]), strict=True))

    def _ids(self, new: Mapping[int, Sequence[int]]) -> Tensor:
        return torch.tensor([token for tokens in new.values() for token in tokens], device=self.decoder.device)

    def _inputs(self, new: Mapping[int, Sequence[int]]) -> AttentionInputs:
        positions, slots = [], []
        for seq, tokens in new.items():
            here = torch.arange(self._lens[seq], self._lens[seq] + len(tokens), device=self.decoder.device)
            positions.append(here)
            slots.append(self._tables[seq][here // BLOCK_SIZE] * BLOCK_SIZE + here % BLOCK_SIZE)
            self._lens[seq] += len(tokens)
        contexts = [self._lens[seq] for seq in new]
        tables = self._tables[list(new)][:, : -(-max(contexts) // BLOCK_SIZE)].clone()
        for table, context in zip(tables, contexts, strict=True):
            table[-(-context // BLOCK_SIZE) :] = 0
        query_lens = [len(tokens) for tokens in new.values()]
        return AttentionInputs(query_lens, contexts, tables, torch.cat(slots), torch.cat(positions), BLOCK_SIZE)
