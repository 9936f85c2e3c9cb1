"""Runs a decoder step by step on a scattered paged cache, as the engine would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from penstock.engine.kernels.cpu.library import Pool, libraries, load_library
from penstock.engine.kernels.cpu.packed import Packed
from penstock.engine.kernels.protocol import AttentionInputs
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.models.assembly import Form
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.load import load_model, load_weights, read_config
from penstock.engine.models.native import NativeDecoder
from penstock.files import ModelFiles

BLOCK_SIZE = 4
NATIVE_BLOCK_SIZE = 16


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


def load_native(
    folder: Path, *, library: str | None = None, threads: int = 2, kv_format: str = "fp32", max_model_len: int | None = None
) -> NativeDecoder:
    """The model on the native kernels, its weights as they are stored."""
    native = load_library(library or libraries()[0])
    config = read_config(files_of(folder))
    form = Form(None, finish=lambda name, weight: Packed(native, weight))
    weights = load_weights(files_of(folder), config, form, lambda stage, done, total: None)
    served = max_model_len or config.max_position_embeddings
    return NativeDecoder(config, weights, Pool(native, threads), kv_format=kv_format, served_len=served, max_tokens=512)


class Pages:
    """Sequences of one decoder, their blocks in random order; the blocks that no sequence holds are full of rubbish."""

    def __init__(self, decoder: Decoder | NativeDecoder, num_seqs: int, max_len: int) -> None:
        self.decoder = decoder
        self._block_size = NATIVE_BLOCK_SIZE if isinstance(decoder, NativeDecoder) else BLOCK_SIZE
        self._device = "cpu" if isinstance(decoder, NativeDecoder) else decoder.device
        width = -(-max_len // self._block_size)
        num_blocks = num_seqs * width + 3
        self._kv = decoder.allocate_kv(num_blocks, self._block_size)
        for cache in (*self._kv.keys, *self._kv.values):
            cache.fill_(0x44 if cache.dtype is torch.uint8 else 1e4)  # 0x44444444 is 785.1
        scattered = torch.randperm(num_blocks - 1, generator=torch.Generator().manual_seed(0)) + 1  # block 0 pads tables: held by none
        self._tables = scattered[: num_seqs * width].view(num_seqs, width).to(self._device)
        self._lens = [0] * num_seqs

    def step(self, new: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
        """Compute `new` tokens of some sequences in one step -> the logits of each, [tokens, vocab]."""
        hidden = self.decoder.forward(self._ids(new), self._inputs(new), self._kv)
        logits = self.decoder.logits(hidden).cpu().clone()  # the next call may overwrite it
        return dict(zip(new, logits.split([len(tokens) for tokens in new.values()]), strict=True))

    def _ids(self, new: Mapping[int, Sequence[int]]) -> Tensor:
        return torch.tensor([token for tokens in new.values() for token in tokens], device=self._device)

    def _inputs(self, new: Mapping[int, Sequence[int]]) -> AttentionInputs:
        positions, slots, size = [], [], self._block_size
        for seq, tokens in new.items():
            here = torch.arange(self._lens[seq], self._lens[seq] + len(tokens), device=self._device)
            positions.append(here)
            slots.append(self._tables[seq][here // size] * size + here % size)
            self._lens[seq] += len(tokens)
        contexts = [self._lens[seq] for seq in new]
        tables = self._tables[list(new)][:, : -(-max(contexts) // size)].clone()
        for table, context in zip(tables, contexts, strict=True):
            table[-(-context // size) :] = 0
        query_lens = [len(tokens) for tokens in new.values()]
        return AttentionInputs(query_lens, contexts, tables, torch.cat(slots), torch.cat(positions), size)
