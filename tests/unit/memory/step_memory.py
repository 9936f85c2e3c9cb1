"""Runs one large step of a random model in a process of its own and prints two numbers: planned and measured workspace, in bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from penstock.engine.kernels.kv import KVCache
from penstock.engine.kernels.protocol import AttentionInputs
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.memory import activation_bytes
from penstock.engine.models.config import ModelConfig, Rope
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.weights import Whole, arrange

CONTEXT, STEP_TOKENS, NUM_SEQS, BLOCK = 4096, 512, 32, 16


def config(softcap: float | None) -> ModelConfig:
    return ModelConfig(
        architecture="LlamaForCausalLM", vocab_size=30_000, hidden_size=512, intermediate_size=2048, num_layers=2, num_heads=8,
        num_kv_heads=2, head_dim=64, max_position_embeddings=CONTEXT, rope=Rope(dim=64), windows=(None, None), attention_scale=0.125,
        attention_softcap=softcap,
    )  # fmt: skip


class Constant:
    """All weights alike."""

    def tensor(self, whole: Whole) -> torch.Tensor:
        return torch.full(whole.shape, 0.01)

    matrix = tensor


def inputs(query_lens: list[int], context_lens: list[int]) -> AttentionInputs:
    """All sequences read the same blocks: who owns them makes no difference to the workspace."""
    blocks = torch.arange(CONTEXT // BLOCK).repeat(len(query_lens), 1)
    positions = torch.cat([torch.arange(context - query, context) for query, context in zip(query_lens, context_lens, strict=True)])
    return AttentionInputs(query_lens, context_lens, blocks, positions, positions, BLOCK)


def run(decoder: Decoder, kv: KVCache, step: AttentionInputs) -> None:
    hidden = decoder.forward(torch.zeros(len(step.slots), dtype=torch.int64), step, kv)
    decoder.logits(hidden[:NUM_SEQS])


def peak_bytes() -> int:
    """Most memory that this process ever held; `getrusage` would count what its parent held before, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(softcap: float | None) -> None:
    made = config(softcap)
    decoder = Decoder(made, arrange(made, Constant(), torch.float32), ReferenceKernels(), CONTEXT)
    kv = KVCache.allocate(made, CONTEXT // BLOCK, BLOCK, torch.float32, "cpu")
    for cache in (*kv.keys, *kv.values):
        cache.fill_(0.01)
    run(decoder, kv, inputs([1], [1]))
    before = peak_bytes()
    run(decoder, kv, inputs([1] * (NUM_SEQS - 1) + [STEP_TOKENS - NUM_SEQS + 1], [CONTEXT] * NUM_SEQS))
    planned = activation_bytes(made, torch.float32, step_tokens=STEP_TOKENS, num_seqs=NUM_SEQS, context=CONTEXT)
    sys.stdout.write(f"{planned} {peak_bytes() - before}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else None)
