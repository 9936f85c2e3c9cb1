"""Rounding to nearest: how far off it may be, and what it must survive."""

from __future__ import annotations

import pytest
import torch

from penstock.engine.quant.formats import INT4, INT8, NAMES, parse_format
from penstock.engine.quant.rtn import round_to_nearest


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(37, 256, generator=torch.Generator().manual_seed(0)) * 0.02


def error(found: torch.Tensor, weight: torch.Tensor) -> float:
    return float((found - weight).pow(2).mean() / weight.pow(2).mean())


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_near_the_weights(name: str, weight: torch.Tensor) -> None:
    form = parse_format(name)
    found = round_to_nearest(weight, form)
    assert found.codes.shape == (37, 256)
    assert int(found.codes.max()) <= form.levels
    assert found.group == (form.group or 256)
    assert (found.minima is not None) == form.asymmetrical
    assert error(found.dequantize(), weight) < (2e-4 if form.bits == 8 else 0.02)


def test_four_bits_are_better_than_largest_over_eight(weight: torch.Tensor) -> None:
    groups = weight.view(-1, 32)
    scales = groups.gather(1, groups.abs().argmax(1, keepdim=True)) / -8
    plain = ((groups / scales).round().clamp(-8, 7) * scales).view_as(weight)
    assert error(round_to_nearest(weight, INT4).dequantize(), weight) < 0.93 * error(plain, weight)


def test_a_finer_format_is_never_worse(weight: torch.Tensor) -> None:
    names = ("int8", "int8-channel", "int4-asym", "int4", "int4-g64", "int4-g128", "int4-channel")
    errors = [error(round_to_nearest(weight, parse_format(name)).dequantize(), weight) for name in names]
    assert errors == sorted(errors)


@pytest.mark.parametrize("name", ["int8", "int4", "int4-asym", "int8-channel"])
def test_zeros_and_very_small_weights_stay_finite(name: str, weight: torch.Tensor) -> None:
    weight[3] = 0.0
    weight[4] *= 1e-9
    weight[5, 32:] = 0.0
    found = round_to_nearest(weight, parse_format(name)).dequantize()
    assert bool(found.isfinite().all())
    assert bool((found[3] == 0).all())
    assert float(found[4].abs().max()) < 1e-6


def test_a_group_of_one_sign_is_kept(weight: torch.Tensor) -> None:
    for one_sided in (weight.abs() + 0.1, -weight.abs() - 0.1):
        assert error(round_to_nearest(one_sided, parse_format("int4-asym")).dequantize(), one_sided) < 0.005


def test_eight_bits_use_codes_that_have_an_opposite(weight: torch.Tensor) -> None:
    assert int(round_to_nearest(weight, INT8).codes.min()) >= 1


def test_important_columns_come_out_nearer(weight: torch.Tensor) -> None:
    importance = torch.ones(256)
    importance[::32] = 1000.0
    plain, weighed = round_to_nearest(weight, INT4).dequantize(), round_to_nearest(weight, INT4, importance).dequantize()
    assert error(weighed[:, ::32], weight[:, ::32]) < 0.5 * error(plain[:, ::32], weight[:, ::32])


def test_the_number_of_threads_stays_the_callers(weight: torch.Tensor) -> None:
    before = torch.get_num_threads()
    round_to_nearest(weight.bfloat16(), INT4)
    assert torch.get_num_threads() == before
