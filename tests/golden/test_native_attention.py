"""Native attention, rope and the KV cache: every build that this machine can run against the reference kernels.

A cache in codes is compared twice: closely with the reference on the numbers that the codes stand for, and within the format's own
error with the reference on the numbers that were stored.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from penstock.core.errors import LoadError
from penstock.engine.kernels.cpu.kv import BITS, KVLayout
from penstock.engine.kernels.cpu.library import Pool, Program, libraries, load_library
from penstock.engine.kernels.cpu.structs import Attention, Rope, Step
from penstock.engine.kernels.protocol import AttentionInputs, AttentionKind
from penstock.engine.kernels.reference import ReferenceKernels

LIBRARIES = libraries()
FORMATS = ("fp32", "bf16", "int8", "int4")
ERRORS = {"fp32": 1e-6, "bf16": 0.004, "int8": 0.008, "int4": 0.1}  # mean, of attention over normal numbers, by the format alone

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="the package was built without native kernels")
each_library = pytest.mark.parametrize("library", LIBRARIES)
each_format = pytest.mark.parametrize("numbers", FORMATS)


@cache
def pool(library: str, threads: int) -> Pool:
    return Pool(load_library(library), threads)


@dataclass(frozen=True)
class Case:
    """Sequences whose keys and values are in a native cache, and the same numbers for the reference."""

    layout: KVLayout
    heads: int
    lens: list[tuple[int, int]]  # query and context length of each sequence
    qkv: Tensor  # [query tokens, heads + 2 * kv_heads, head_dim]; keys and values are not read again
    tables: Tensor  # [seqs, blocks]
    native: tuple[Tensor, Tensor]
    stored: tuple[Tensor, Tensor]  # [slots, kv_heads, head_dim] keys, values, as they came
    held: tuple[Tensor, Tensor]  # the same, as the format can hold them


def addresses(step: Step, **tensors: Tensor) -> Step:
    for name, tensor in tensors.items():
        setattr(step, name, tensor.data_ptr())
    step.kept = tensors
    return step


def held(numbers: str, x: Tensor) -> Tensor:
    """The numbers that remain of x [..., head_dim] in a format."""
    if numbers == "fp32":
        return x
    if numbers == "bf16":
        return x.bfloat16().float()
    low = cut(x.amin(-1, keepdim=True), down=True)
    levels = 2 ** BITS[numbers] - 1
    scale = cut((x.amax(-1, keepdim=True) - low) / levels, down=False)
    inverse = torch.where(scale > 1e-37, 1 / scale, 0)
    return low + scale * ((x - low) * inverse).round().clamp(0, levels)


def cut(x: Tensor, *, down: bool) -> Tensor:
    """The next bfloat16 at or below x, or at or above it."""
    near = (x.view(torch.int32) & -0x10000).view(torch.float32)
    wrong = near > x if down else near < x
    return torch.where(wrong, (near.view(torch.int32) + 0x10000).view(torch.float32), near)


def store(layout: KVLayout, native: tuple[Tensor, Tensor], slots: Tensor, keys_values: Tensor, library: str, threads: int = 1) -> None:
    """keys_values [tokens, 2 * kv_heads, head_dim] as they are: nothing turns."""
    x = keys_values.contiguous()
    operation = Rope(heads=0, dim=0, qkv=x.data_ptr(), kv=layout.struct(*native))
    pool(library, threads).run(Program([operation]), addresses(Step(tokens=len(x)), slots=slots))


def make_case(
    library: str, layout: KVLayout, heads: int, lens: list[tuple[int, int]], *, seed: int = 0, junk: float = 1e4, threads: int = 1
) -> Case:
    """Blocks lie scattered and have been used before: by numbers near `junk`, which nothing may show of."""
    torch.manual_seed(seed)
    size, kv_heads, dim = layout.block_size, layout.kv_heads, layout.head_dim
    width = -(-max(context for _, context in lens) // size)
    blocks = len(lens) * width + 1
    tables = (torch.randperm(blocks - 1) + 1).view(len(lens), width)
    native = layout.allocate(blocks), layout.allocate(blocks)
    every = torch.arange(blocks * size)
    store(layout, native, every, junk * torch.randn(len(every), 2 * kv_heads, dim), library)
    slots = torch.cat(
        [(row[:, None] * size + torch.arange(size)).flatten()[:context] for row, (_, context) in zip(tables, lens, strict=True)]
    )
    new = torch.randn(len(slots), 2 * kv_heads, dim) * torch.rand(2 * kv_heads, dim) + torch.randn(2 * kv_heads, dim)
    store(layout, native, slots, new, library, threads)
    stored = torch.zeros(2, blocks * size, kv_heads, dim)
    stored[0, slots], stored[1, slots] = new[:, :kv_heads], new[:, kv_heads:]
    for row, (_, context) in zip(tables, lens, strict=True):
        row[-(-context // size) :] = 0
    qkv = torch.full((sum(q for q, _ in lens), heads + 2 * kv_heads, dim), torch.nan)
    qkv[:, :heads] = torch.randn(len(qkv), heads, dim)
    as_held = held(layout.format, stored)
    return Case(layout, heads, lens, qkv, tables, native, (stored[0], stored[1]), (as_held[0], as_held[1]))


def attend(library: str, threads: int, case: Case, kind: AttentionKind) -> Tensor:
    out = torch.full((len(case.qkv), case.heads, case.layout.head_dim), torch.nan)
    operation = Attention(
        heads=case.heads, scale=kind.scale, window=kind.window or 0, softcap=kind.softcap or 0,
        qkv=case.qkv.data_ptr(), kv=case.layout.struct(*case.native), out=out.data_ptr(),
    )  # fmt: skip
    lens = torch.tensor(case.lens).t().contiguous()
    step = Step(tokens=len(case.qkv), seqs=len(case.lens), max_blocks=case.tables.shape[1])
    pool(library, threads).run(Program([operation]), addresses(step, query_lens=lens[0], context_lens=lens[1], tables=case.tables))
    return out


def reference(case: Case, cached: tuple[Tensor, Tensor], kind: AttentionKind) -> Tensor:
    positions = torch.cat([torch.arange(context - query, context) for query, context in case.lens])
    query_lens, context_lens = map(list, zip(*case.lens, strict=True))
    inputs = AttentionInputs(query_lens, context_lens, case.tables, torch.zeros_like(positions), positions, case.layout.block_size)
    plan = ReferenceKernels().plan(inputs, {kind.window})
    return plan(case.qkv[:, : case.heads].contiguous(), *cached, kind)


def check(library: str, case: Case, kind: AttentionKind, threads: int = 1) -> None:
    actual = attend(library, threads, case, kind)
    near = 5e-5 if case.layout.format in ("fp32", "bf16") else 1e-3 * max(1, kind.scale)  # codes: queries and weights in 15 bits
    torch.testing.assert_close(actual, reference(case, case.held, kind), atol=near, rtol=1e-4)
    if kind.scale > 1:  # scores so far apart that an error in one decides all
        return
    error = (actual - reference(case, case.stored, kind)).abs().mean().item()
    assert error < ERRORS[case.layout.format], f"{case.layout.format} moves the result by {error:.5f}"


def mixed_lens(seed: int) -> list[tuple[int, int]]:
    """Decodes, chunks of prompts and whole prompts, as an engine mixes them."""
    rng = random.Random(seed)
    lens = []
    for _ in range(rng.randint(1, 5)):
        context = rng.choice((1, 15, 16, 17, rng.randint(1, 150)))
        lens.append((rng.choice((1, 1, context, rng.randint(1, context))), context))
    return lens


KINDS = [
    AttentionKind(0.3),
    AttentionKind(0.3, window=9),
    AttentionKind(0.3, window=33, softcap=2.0),
]
HEADS = [(14, 2, 64), (4, 4, 80), (8, 1, 24), (3, 1, 128), (12, 4, 8), (6, 3, 96)]  # heads, KV heads, head_dim


@each_library
@each_format
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_mix_of_lengths(library: str, numbers: str, heads: tuple[int, int, int], kind: AttentionKind) -> None:
    layout = KVLayout(numbers, heads[1], heads[2], block_size=16 * (1 + heads[1] % 2))
    check(library, make_case(library, layout, heads[0], mixed_lens(heads[0])), kind, threads=1 + heads[0] % 3)


LENS = {
    "contexts of every kind": [(1, context) for context in (1, 15, 16, 17, 31, 255, 256, 257, 1000, 4096)],
    "a long prompt": [(600, 600)],
    "a chunk after a long prefix": [(40, 1111)],
    "one token": [(1, 1)],
    "one long sequence": [(1, 4095)],
}


@each_library
@each_format
@pytest.mark.parametrize("lens", LENS.values(), ids=LENS.keys())
def test_lengths(library: str, numbers: str, lens: list[tuple[int, int]]) -> None:
    case, kind = make_case(library, KVLayout(numbers, 2, 64, 16), 14, lens), AttentionKind(0.125)
    check(library, case, kind)
    alone = attend(library, 1, case, kind)
    for threads in (2, 3):
        torch.testing.assert_close(attend(library, threads, case, kind), alone, atol=1e-4, rtol=1e-4)
    check(library, case, AttentionKind(0.125, window=300), threads=2)


@each_library
@pytest.mark.parametrize("heads", [(32, 1, 256), (71, 1, 64), (300, 1, 16), (5, 5, 256), (16, 2, 104), (9, 9, 40), (20, 4, 72)], ids=str)
def test_ratios_and_dimensions(library: str, heads: tuple[int, int, int]) -> None:
    for numbers in FORMATS:
        case = make_case(library, KVLayout(numbers, heads[1], heads[2], 32), heads[0], [(1, 70), (3, 40), (50, 50)])
        check(library, case, AttentionKind(heads[2] ** -0.5), threads=2)


@each_library
@each_format
def test_scores_far_apart(library: str, numbers: str) -> None:
    """A softmax whose largest score is found last, and weights that vanish."""
    case = make_case(library, KVLayout(numbers, 1, 32, 16), 2, [(1, 900), (33, 700)])
    check(library, case, AttentionKind(20.0))


@each_library
@each_format
def test_what_a_block_held_before_is_not_seen(library: str, numbers: str) -> None:
    """Not even where it is no number: a reused block's other tokens are never multiplied."""
    lens = [(1, 5), (7, 23), (1, 33), (21, 21)]
    case = make_case(library, KVLayout(numbers, 2, 64, 16), 4, lens, junk=torch.nan)
    for kind in KINDS:
        check(library, case, kind)


@each_library
@each_format
@pytest.mark.parametrize(("dim", "turned"), [(64, 64), (80, 32), (24, 24), (128, 40), (96, 0)])
@pytest.mark.parametrize("normed", [False, True])
def test_rope_turns_norms_and_stores(library: str, numbers: str, dim: int, turned: int, normed: bool) -> None:
    torch.manual_seed(dim)
    heads, kv_heads, tokens, threads = 6, 2, 37, 1 + dim % 3
    layout, kernels = KVLayout(numbers, kv_heads, dim, 16), ReferenceKernels()
    qkv, weight = torch.randn(tokens, heads + 2 * kv_heads, dim), torch.randn(heads + kv_heads, dim)
    angles = torch.randn(tokens, turned // 2) * 9
    cos, sin = angles.cos(), angles.sin()
    expected = qkv.clone()
    front = expected[:, : heads + kv_heads]
    if normed:
        front.copy_(kernels.rms_norm(front, weight, 1e-6))
    kernels.rope_(front, torch.cat((cos, cos), -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1))
    native, direct = ((layout.allocate(5), layout.allocate(5)) for _ in range(2))
    slots = torch.randperm(80)[:tokens]
    operation = Rope(
        heads=heads, dim=turned, eps=1e-6, qkv=qkv.data_ptr(), norm=weight.data_ptr() if normed else None,
        cos=cos.data_ptr(), sin=sin.data_ptr(), kv=layout.struct(*native),
    )  # fmt: skip
    pool(library, threads).run(Program([operation]), addresses(Step(tokens=tokens), slots=slots))
    torch.testing.assert_close(qkv, expected, atol=2e-6, rtol=1e-5)
    store(layout, direct, slots, qkv[:, heads:], library)
    assert torch.equal(native[0], direct[0]) and torch.equal(native[1], direct[1])


@each_library
@each_format
def test_entries_that_are_all_alike(library: str, numbers: str) -> None:
    """No range to divide by, or one that floats hardly have."""
    layout = KVLayout(numbers, 1, 16, 16)
    native = layout.allocate(1), layout.allocate(1)
    values = torch.tensor([0.0, 1.2345, -7.7, 1e-39, 3e4])
    store(layout, native, torch.arange(5), values[:, None, None].expand(5, 2, 16), library)
    for count in range(1, 6):
        case = Case(layout, 1, [(1, count)], torch.zeros(1, 3, 16), torch.zeros(1, 1, dtype=torch.int64), native, *[(values, values)] * 2)
        mean = values[:count].mean()
        torch.testing.assert_close(attend(library, 1, case, AttentionKind(1.0))[0, 0], mean.expand(16), atol=1e-30, rtol=5e-3)


@pytest.mark.parametrize("numbers", FORMATS)
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_python_and_the_library_count_the_same_bytes(numbers: str, heads: tuple[int, int, int]) -> None:
    layout = KVLayout(numbers, heads[1], heads[2], 32)
    tensor = layout.allocate(3)
    assert tensor.shape == (3, layout.block_bytes)
    for library in LIBRARIES:
        assert load_library(library).kv_block_bytes(layout.struct(tensor, tensor)) == layout.block_bytes


def test_a_token_costs_what_the_table_says() -> None:
    cost = {numbers: KVLayout(numbers, 1, 64, 16).block_bytes / 16 for numbers in FORMATS}
    assert cost == {"fp32": 256, "bf16": 128, "int8": 68, "int4": 36}


@pytest.mark.parametrize(("head_dim", "block_size", "word"), [(20, 16, "20"), (264, 16, "264"), (64, 24, "24"), (64, 8, "block of 8")])
def test_shapes_without_a_layout_are_refused(head_dim: int, block_size: int, word: str) -> None:
    with pytest.raises(LoadError, match=word):
        KVLayout("int8", 2, head_dim, block_size)


@each_library
@each_format
def test_scores_that_are_large(library: str, numbers: str) -> None:
    """Beside which the rounding of a float is more than that of a weight, as some models' biases of keys make them."""
    case = make_case(library, KVLayout(numbers, 2, 64, 16), 8, [(100, 100)] * 2)
    case.qkv[:, :8] *= 100
    kind = AttentionKind(64**-0.5)
    torch.testing.assert_close(attend(library, 1, case, kind), reference(case, case.held, kind), atol=0.05, rtol=0)
