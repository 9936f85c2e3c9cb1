"""GPTQ's layout, word by word, and through the reader."""

from __future__ import annotations

import pytest
import torch

from penstock.engine.models.gptq import Packing, unpack_matrix
from penstock.engine.quant.checkpoint import pack
from penstock.engine.quant.formats import NAMES, parse_format
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import round_to_nearest


def numbers(words: torch.Tensor, bits: int, along: int) -> torch.Tensor:
    """Every code of int32 words, as AutoGPTQ's reference unpacks them."""
    shifts = torch.arange(0, 32, bits)
    each = words.unsqueeze(1 + along) >> (shifts.view(1, -1, 1) if along == 0 else shifts.view(1, 1, -1))
    found: torch.Tensor = (each & (2**bits - 1)).flatten(along, along + 1)
    return found


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(24, 256, generator=torch.Generator().manual_seed(0)) * 0.02


@pytest.mark.parametrize("name", NAMES)
def test_the_formula_of_gptq_gives_the_weights_back(name: str, weight: torch.Tensor) -> None:
    form = parse_format(name)
    made = round_to_nearest(weight, form)
    packed = pack(made)
    assert {part: tensor.dtype for part, tensor in packed.items()} == {
        "qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16, "g_idx": torch.int32,
    }  # fmt: skip
    codes, zeros = numbers(packed["qweight"], form.bits, 0), numbers(packed["qzeros"], form.bits, 1) + 1
    group_of = packed["g_idx"].long()
    found = packed["scales"].float()[group_of] * (codes - zeros[group_of])
    assert float((found.T - made.dequantize()).abs().max()) < 1e-3 * float(weight.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_the_reader_reads_what_is_written(name: str, weight: torch.Tensor) -> None:
    form = parse_format(name)
    made = round_to_nearest(weight, form)
    found = unpack_matrix("m", pack(made), Packing(is_awq=False, bits=form.bits, zero_offset=1, is_symmetrical=not form.asymmetrical))
    assert torch.equal(found.codes, made.codes)
    assert torch.equal(found.scales, made.scales)
    assert found.order is None
    assert float((found.dequantize() - made.dequantize()).abs().max()) < 1e-4


def test_columns_in_another_order_are_written_where_their_inputs_are(weight: torch.Tensor) -> None:
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    sorted_columns = round_to_nearest(weight[:, order], parse_format("int4-g64"))
    made = Quantized(sorted_columns.codes, sorted_columns.scales, None, 4, order.int())
    found = unpack_matrix("m", pack(made), Packing(is_awq=False, bits=4, zero_offset=1, is_symmetrical=True))
    assert torch.equal(found.dequantize(), made.dequantize())
    assert float((found.dequantize() - weight).pow(2).mean() / weight.pow(2).mean()) < 0.02
