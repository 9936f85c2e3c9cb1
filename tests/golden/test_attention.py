"""Paged attention against the textbook: one sequence and one head at a time, densely."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from penstock.engine.kernels.protocol import AttentionInputs, AttentionKind, Experts, GatedMLP, Linear
from penstock.engine.kernels.reference import ReferenceKernels

BLOCK_SIZE = 8
RUBBISH = 1e4  # what unused slots hold: any of it in a result would show


@dataclass(frozen=True)
class Step:
    """Random sequences in a cache whose blocks are scattered, and the queries of one step."""

    inputs: AttentionInputs
    queries: Tensor
    keys: Tensor
    values: Tensor


def make_step(lens: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, device: str) -> Step:
    """`lens`: query and context length of each sequence."""
    torch.manual_seed(0)
    contexts = [context for _, context in lens]
    width = -(-max(contexts) // BLOCK_SIZE)
    num_blocks = len(lens) * width + 1
    tables = (torch.randperm(num_blocks - 1) + 1)[: len(lens) * width].view(len(lens), width)
    keys, values = (torch.full((num_blocks * BLOCK_SIZE, kv_heads, head_dim), RUBBISH) for _ in range(2))
    positions = []
    for table, (query, context) in zip(tables, lens, strict=True):
        slots = (table[:, None] * BLOCK_SIZE + torch.arange(BLOCK_SIZE)).flatten()[:context]
        keys[slots], values[slots] = torch.randn(2, context, kv_heads, head_dim)
        positions.append(torch.arange(context - query, context))
        table[-(-context // BLOCK_SIZE) :] = 0
    position = torch.cat(positions).to(device)
    inputs = AttentionInputs([q for q, _ in lens], contexts, tables.to(device), torch.zeros_like(position), position, BLOCK_SIZE)
    return Step(inputs, torch.randn(len(position), heads, head_dim).to(device), keys.to(device), values.to(device))


def textbook(step: Step, kind: AttentionKind) -> Tensor:
    rows, begin = [], 0
    for query_len, context, table in zip(step.inputs.query_lens, step.inputs.context_lens, step.inputs.block_tables, strict=True):
        slots = (table[:, None] * BLOCK_SIZE + torch.arange(BLOCK_SIZE, device=table.device)).flatten()[:context]
        repeat = step.queries.shape[1] // step.keys.shape[1]
        k, v = (cache[slots].repeat_interleave(repeat, dim=1) for cache in (step.keys, step.values))  # [context, heads, dim]
        for i in range(query_len):
            last = context - query_len + i
            first = 0 if kind.window is None else max(0, last - kind.window + 1)
            scores = torch.einsum("hd,chd->hc", step.queries[begin + i], k[first : last + 1]) * kind.scale
            if kind.softcap is not None:
                scores = kind.softcap * torch.tanh(scores / kind.softcap)
            rows.append(torch.einsum("hc,chd->hd", scores.softmax(-1), v[first : last + 1]))
        begin += query_len
    return torch.stack(rows)


def random_lens(rng: random.Random) -> list[tuple[int, int]]:
    """Decodes, chunks of prompts and whole prompts, as an engine mixes them."""
    lens = []
    for _ in range(rng.randint(1, 7)):
        context = rng.randint(1, 70)
        lens.append((rng.choice((1, 1, context, rng.randint(1, context))), context))
    return lens


KINDS = [
    AttentionKind(0.3),
    AttentionKind(0.3, window=9),
    AttentionKind(0.3, window=16),
    AttentionKind(0.3, softcap=0.7),
    AttentionKind(0.3, window=5, softcap=0.7),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_any_mix_of_lengths(kind: AttentionKind, heads: tuple[int, int], seed: int, device: str) -> None:
    step = make_step(random_lens(random.Random(seed)), *heads, head_dim=16, device=device)
    attend = ReferenceKernels().plan(step.inputs, {None, kind.window})
    torch.testing.assert_close(attend(step.queries, step.keys, step.values, kind), textbook(step, kind), atol=2e-5, rtol=1e-4)


LENS = {
    "decodes of one length": [(1, 24)] * 5,
    "decodes far apart": [(1, 3), (1, 2100), (1, 40), (1, 2000), *[(1, 5)] * 4],
    "more keys than the workspace holds": [(1, 1500 + i) for i in range(9)],
    "a chunk more than the workspace holds": [(2, 3000), (2, 2990), (2, 1900), (2, 2999)],
    "whole prompts of one length": [(12, 12)] * 3,
    "whole prompts of many lengths": [(16, 16), (9, 9), (11, 11)],
    "one token, the first": [(1, 1)],
    "first tokens": [(1, 1), (1, 1)],
}


@pytest.mark.parametrize("kind", [AttentionKind(0.2), AttentionKind(0.2, window=700), AttentionKind(0.2, softcap=1.0)], ids=str)
@pytest.mark.parametrize("lens", LENS.values(), ids=LENS.keys())
def test_lengths_that_are_grouped_apart(lens: list[tuple[int, int]], kind: AttentionKind, device: str) -> None:
    step = make_step(lens, heads=4, kv_heads=2, head_dim=64, device=device)
    attend = ReferenceKernels().plan(step.inputs, {kind.window})
    torch.testing.assert_close(attend(step.queries, step.keys, step.values, kind), textbook(step, kind), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 2, 33])
def test_experts_equal_a_loop_over_tokens(num_tokens: int, renormalize: bool, device: str) -> None:
    torch.manual_seed(num_tokens)
    hidden, inner, num_experts, top_k = 12, 10, 7, 3
    shapes = (num_experts, hidden), (num_experts, 2 * inner, hidden), (num_experts, hidden, inner)
    router, gate_up, down = (torch.randn(shape, device=device) for shape in shapes)
    x = torch.randn(num_tokens, hidden, device=device)
    expected = torch.zeros_like(x)
    for token in range(num_tokens):
        weights = (router @ x[token]).softmax(0)
        chosen = weights.topk(top_k).indices
        total = weights[chosen].sum() if renormalize else 1.0
        for expert in chosen:
            gate, up = (gate_up[expert] @ x[token]).chunk(2)
            expected[token] += weights[expert] / total * (down[expert] @ (torch.nn.functional.silu(gate) * up))
    mlps = [GatedMLP(Linear(up), Linear(down)) for up, down in zip(gate_up, down, strict=True)]
    actual = ReferenceKernels().moe(x, Experts(router, mlps, top_k, renormalize), "silu")
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
