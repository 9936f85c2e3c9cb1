"""Native matrix products: every build that this machine can run, in every format, against float64 products of the same numbers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from penstock.core.errors import LoadError
from penstock.engine.kernels.cpu.library import Pool, Program, libraries, load_library
from penstock.engine.kernels.cpu.packed import Packed
from penstock.engine.kernels.cpu.structs import Linear, Quantize, Step
from penstock.engine.quant.quantized import Quantized

LIBRARIES = libraries()
TOKENS = (1, 2, 3, 5, 7, 8, 9, 31, 33, 130)
ROWS = (1, 15, 17, 33, 64)

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="the package was built without native kernels")
each_library = pytest.mark.parametrize("library", LIBRARIES)
each_bits = pytest.mark.parametrize("bits", [8, 4])


@cache
def pool(library: str, threads: int) -> Pool:
    return Pool(load_library(library), threads)


def quantized(rows: int, cols: int, bits: int, group: int, *, minima: bool = False, order: bool = False) -> Quantized:
    return Quantized(
        torch.randint(0, 1 << bits, (rows, cols), dtype=torch.uint8),
        (torch.rand(rows, cols // group) * 0.02 + 0.001).half(),
        (torch.rand(rows, cols // group) * 0.1).half() if minima else None,
        bits,
        torch.randperm(cols).int() if order else None,
    )


def product(library: str, source: Quantized | Tensor, x: Tensor, *, bias: Tensor | None = None, threads: int = 1) -> Tensor:
    """x [tokens, cols] through the native operations -> [tokens, rows]. What lies behind the output must stay as it is."""
    packed, rows, tokens = Packed(load_library(library), source), source.shape[0], len(x)
    memory = torch.empty(load_library(library).activation_bytes(packed.matrix, tokens) + 64, dtype=torch.uint8)
    activations = (memory.data_ptr() + 63) // 64 * 64
    out = torch.full((tokens * rows + 64,), 7.0)
    bias_at = None if bias is None else bias.data_ptr()
    program = Program(
        [
            Quantize(x=x.data_ptr(), target=packed.matrix, activations=activations),
            Linear(matrix=packed.matrix, activations=activations, bias=bias_at, out=out.data_ptr()),
        ],
        packed, x, bias, memory, out,
    )  # fmt: skip
    pool(library, threads).run(program, Step(tokens=tokens))
    assert (out[tokens * rows :] == 7).all()
    return out[: tokens * rows].view(tokens, rows)


def rounded(x: Tensor, source: Quantized) -> Tensor:
    """x as the kernels take it: 8 bits for each token and group of the matrix's columns."""
    order = torch.arange(x.shape[1]) if source.order is None else source.order.long()
    groups = x[:, order].view(len(x), -1, source.group)
    largest = groups.abs().amax(-1, keepdim=True)
    inverse = torch.full_like(largest, 127) / largest
    codes = torch.round(groups * inverse.nan_to_num(posinf=0))
    return torch.empty_like(x).index_copy_(1, order, (codes * (largest / 127)).view_as(x))


def check(library: str, source: Quantized | Tensor, x: Tensor, *, bias: Tensor | None = None, threads: int = 1) -> None:
    """The product is that of the numbers that the codes and scales stand for, up to the order of float32 sums."""
    weight = source.dequantize() if isinstance(source, Quantized) else source.float()
    inputs = rounded(x, source) if isinstance(source, Quantized) else x
    expected = inputs.double() @ weight.double().t() + (0 if bias is None else bias.double())
    size = (inputs.double().abs() @ weight.double().abs().t()).max()  # of the terms of a sum
    difference = product(library, source, x, bias=bias, threads=threads) - expected
    assert difference.abs().max() < 2e-6 * size


@each_library
@each_bits
@pytest.mark.parametrize("group", [16, 32, 64, 128, 0])
def test_codes(library: str, bits: int, group: int) -> None:
    for i, tokens in enumerate(TOKENS):
        rows, cols = ROWS[i % len(ROWS)], (128, 384)[i % 2]
        for minima in (False, True):
            source = quantized(rows, cols, bits, group or cols, minima=minima, order=i % 3 == 0)
            bias = torch.randn(rows) if i % 2 else None
            check(library, source, torch.randn(tokens, cols), bias=bias, threads=1 + i % 3)


@each_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_floats(library: str, dtype: torch.dtype) -> None:
    for i, tokens in enumerate(TOKENS):
        rows, cols = ROWS[i % len(ROWS)], (1, 37, 128)[i % 3]
        bias = torch.randn(rows) if i % 2 else None
        check(library, torch.randn(rows, cols).to(dtype), torch.randn(tokens, cols), bias=bias, threads=1 + i % 3)


@each_library
@each_bits
def test_every_shape_of_a_kernel_call(library: str, bits: int) -> None:
    for cols in (32, 96):
        source = quantized(50, cols, bits, 32)
        for tokens in range(1, 14):
            check(library, source, torch.randn(tokens, cols))


@each_library
@each_bits
@pytest.mark.parametrize("group", [32, 48, 64, 4864])
def test_the_largest_sums_do_not_saturate(library: str, bits: int, group: int) -> None:
    """Codes at both ends, with inputs that add up all of one sign, or cancel."""
    cols = 4864 // group * group // 32 * 32 if group != 48 else 480
    top = (1 << bits) - 1
    codes = torch.stack([torch.full((cols,), top), torch.zeros(cols), torch.arange(cols) % 2 * top, torch.arange(cols) // 4 % 2 * top])
    source = Quantized(codes.to(torch.uint8), torch.ones(4, cols // group).half(), None, bits)
    signs = torch.stack([torch.ones(cols), -torch.ones(cols), torch.arange(cols) % 2 * 2.0 - 1, torch.arange(cols) // 4 % 2 * 2.0 - 1])
    check(library, source, signs.repeat(3, 1), threads=2)


@each_library
@each_bits
def test_zeros_and_what_is_not_a_number(library: str, bits: int) -> None:
    source = quantized(20, 64, bits, 32)
    x = torch.randn(4, 64)
    x[0] = 0
    x[1] *= 1e-38  # too small for an inverse
    x[2, 40], x[3, 3] = torch.inf, torch.nan
    out = product(library, source, x)
    assert (out[0] == 0).all()
    assert out[1].abs().max() < 1e-30
    assert not out[2:].isfinite().any()


@each_library
@each_bits
def test_one_token_or_a_step_of_many_give_the_same_numbers(library: str, bits: int) -> None:
    source, x = quantized(40, 256, bits, 32), torch.randn(40, 256)
    whole = product(library, source, x, threads=2)
    single = torch.cat([product(library, source, row) for row in x.split(1)])
    assert torch.equal(whole, single)


@each_library
def test_many_tokens_and_rows_are_all_done_once(library: str) -> None:
    """More of both than one piece of work takes, with a last tile that is not whole."""
    source = quantized(1000, 1024, 4, 32)
    check(library, source, torch.randn(700, 1024), threads=2)


@each_library
@each_bits
@pytest.mark.parametrize("minima", [False, True])
def test_packed_weights_are_what_they_were(library: str, bits: int, minima: bool) -> None:
    source = quantized(35, 96, bits, 32, minima=minima, order=True)
    packed = Packed(load_library(library), source)
    torch.testing.assert_close(packed.dequantize(), source.dequantize(), rtol=1e-6, atol=1e-6)
    tiles = 48 * 96
    assert packed.nbytes == tiles * bits // 8 + tiles // 32 * (4 if minima else 2) + 96 * 4
    assert packed.shape == source.shape


@each_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_packed_floats_are_exact(library: str, dtype: torch.dtype) -> None:
    weight = torch.randn(19, 23).to(dtype)
    assert torch.equal(Packed(load_library(library), weight).dequantize(), weight.float())


def test_a_shape_without_a_layout_is_refused_with_the_reason() -> None:
    library = load_library(LIBRARIES[0])
    with pytest.raises(LoadError, match="40 columns are no multiple of 32"):
        Packed(library, quantized(8, 40, 4, 40))
    with pytest.raises(LoadError, match="groups of 8 columns"):
        Packed(library, quantized(8, 64, 8, 8))
    with pytest.raises(LoadError, match="int64"):
        Packed(library, torch.ones(8, 8, dtype=torch.int64))


@each_library
def test_no_tokens_at_all(library: str) -> None:
    for source in (quantized(33, 64, 8, 32), torch.randn(33, 64)):
        assert product(library, source, torch.empty(0, 64)).shape == (0, 33)
