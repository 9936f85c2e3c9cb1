"""Methods that read: they must be worth it, and moving scales must not change a model."""

from __future__ import annotations

import pytest
import torch
from quantizable import CONFIG, config_of, random_weights

from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.weights import Weights
from penstock.engine.quant import awq, calibration, smoothquant
from penstock.engine.quant.calibration import Outcome, quantize_plainly, quantize_reading
from penstock.engine.quant.descent import descend
from penstock.engine.quant.formats import INT4, INT8, WeightFormat, parse_format
from penstock.engine.quant.gptq import gptq
from penstock.engine.quant.inputs import Inputs
from penstock.engine.quant.methods import CALIBRATED, Method
from penstock.engine.quant.rtn import fit, round_to_nearest
from penstock.engine.quant.sites import sites


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(48, 128, generator=torch.Generator().manual_seed(0)) * 0.02


@pytest.fixture
def x() -> torch.Tensor:
    """Correlated inputs, some channels of which are much larger than others."""
    rng = torch.Generator().manual_seed(1)
    mixed = torch.randn(2000, 24, generator=rng) @ torch.randn(24, 128, generator=rng) + 0.5 * torch.randn(2000, 128, generator=rng)
    return mixed * torch.randn(128, generator=rng).exp()


def loss(x: torch.Tensor, found: torch.Tensor, weight: torch.Tensor) -> float:
    return float((x @ (found - weight).T).pow(2).mean())


@pytest.mark.parametrize("name", ["int4", "int4-g128", "int4-g64-asym", "int8-channel"])
def test_methods_that_read_beat_rounding(name: str, weight: torch.Tensor, x: torch.Tensor) -> None:
    form, inputs = parse_format(name), Inputs.of(x)
    plain = loss(x, round_to_nearest(weight, form).dequantize(), weight)
    compensated = loss(x, gptq(weight, inputs, form).dequantize(), weight)
    scales = awq.scales(weight, inputs, form)
    scaled = loss(x, awq.awq(weight * scales, inputs.divided(scales), form).dequantize() / scales, weight)
    assert scaled < 0.8 * plain
    assert compensated < 0.3 * plain


def test_loss_is_the_error_of_the_outputs(weight: torch.Tensor, x: torch.Tensor) -> None:
    found = round_to_nearest(weight, INT4).dequantize()
    assert Inputs.of(x).loss(found - weight) / 48 == pytest.approx(loss(x, found, weight), rel=1e-3)


def test_gptq_makes_up_for_errors_of_earlier_layers(weight: torch.Tensor, x: torch.Tensor) -> None:
    """What counts are the float model's outputs, for inputs that are no longer those of the float model."""
    coarse = x + 0.3 * x.abs().mean(0) * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) + 0.2 * x.roll(1, 1)

    def distance(inputs: Inputs) -> float:
        return float((coarse @ gptq(weight, inputs, INT4).dequantize().T - x @ weight.T).pow(2).mean())

    assert distance(Inputs.of(coarse, x)) < 0.8 * distance(Inputs.of(coarse))


@pytest.mark.parametrize("name", ["int4", "int4-g64-asym", "int4-channel", "int8"])
def test_descent_only_improves(name: str, weight: torch.Tensor, x: torch.Tensor) -> None:
    form, inputs = parse_format(name), Inputs.of(x)
    groups = weight.reshape(-1, form.group or 128)
    grid = fit(groups, form)
    codes = grid.codes(groups)
    before = inputs.loss(grid.values(codes).view_as(weight) - weight)
    codes, scales, zeros = descend(weight, codes.view_as(weight), grid, inputs.moments + 1e-6 * torch.eye(128))
    size = form.group or 128
    after = inputs.loss((codes - zeros.repeat_interleave(size, 1)) * scales.repeat_interleave(size, 1) - weight)
    assert after < 0.8 * before
    assert 0 <= float(codes.min()) <= float(codes.max()) <= form.levels


def test_gptq_survives_inputs_that_never_came(weight: torch.Tensor, x: torch.Tensor) -> None:
    x[:, 40:80] = 0.0
    assert bool(gptq(weight, Inputs.of(x), INT4).dequantize().isfinite().all())
    assert bool(gptq(weight, Inputs.of(torch.zeros_like(x)), INT4).dequantize().isfinite().all())


def test_smoothquant_evens_out_the_inputs(weight: torch.Tensor, x: torch.Tensor) -> None:
    inputs = Inputs.of(x)
    after = inputs.divided(smoothquant.scales(weight, inputs, INT8)).largest
    assert float(after.max() / after.min()) < 0.5 * float(inputs.largest.max() / inputs.largest.min())


def put(config: ModelConfig, weights: Weights, outcome: Outcome) -> Decoder:
    """The model that the codes stand for."""
    with torch.inference_mode():
        for site in sites(config, weights):
            if isinstance(weight := site.linear.weight, torch.Tensor):
                weight.copy_(outcome.codes[site.name].dequantize())
    return Decoder(config, weights, ReferenceKernels(), 32)


WINDOWS = torch.randint(0, CONFIG["vocab_size"], (6, 32), generator=torch.Generator().manual_seed(2)).tolist()


def outputs(decoder: Decoder) -> torch.Tensor:
    config, weights = decoder.config, decoder._weights
    cache = calibration._one_layer(config, weights, len(WINDOWS), 32)
    hidden = decoder.forward(torch.tensor(WINDOWS).flatten(), calibration._together(len(WINDOWS), 32), cache)
    return decoder.logits(hidden)


@pytest.mark.parametrize("heads", [(4, 2), (4, 4)])
def test_scales_move_without_changing_the_model(heads: tuple[int, int]) -> None:
    """Whatever the scales: norms, value and up projections take what matrices are given, biases included."""
    config = config_of(num_attention_heads=heads[0], num_key_value_heads=heads[1], attention_bias=True, mlp_bias=True)
    before = outputs(Decoder(config, random_weights(config), ReferenceKernels(), 32))

    def drawn(weight: torch.Tensor, inputs: Inputs, form: WeightFormat) -> torch.Tensor:
        return (inputs.typical.sin() * 0.5).exp()  # a function of what heads that share a value have in common

    weights = random_weights(config)
    outcome = quantize_reading(
        config, weights, INT8, Method(lambda w, _, form: round_to_nearest(w, form), drawn, "all"), WINDOWS, lambda *_: None
    )
    after = outputs(put(config, weights, outcome))
    assert len(outcome.norms) == 2 * config.num_layers
    assert float((after - before).norm() / before.norm()) < 0.1


@pytest.mark.parametrize("method", CALIBRATED)
def test_a_model_read_is_nearer_than_one_rounded(method: str) -> None:
    config = config_of()
    form = parse_format("int8-channel" if method == "smoothquant" else "int4")
    before = outputs(Decoder(config, random_weights(config), ReferenceKernels(), 32))

    def distance(reading: bool) -> float:
        weights = random_weights(config)
        if reading:
            outcome = quantize_reading(config, weights, form, CALIBRATED[method], WINDOWS, lambda *_: None)
        else:
            outcome = quantize_plainly(config, weights, form, lambda *_: None)
        after = outputs(put(config, weights, outcome))
        return float((after - before).norm() / before.norm())

    assert distance(True) < distance(False) * (1.05 if method == "smoothquant" else 0.95)


def test_matrices_that_do_not_divide_stay_in_float() -> None:
    config = config_of(intermediate_size=72)
    found = quantize_plainly(config, random_weights(config), INT4, lambda *_: None)
    assert found.floats == [f"model.layers.{i}.mlp.down_proj.weight" for i in range(2)]
    read = quantize_reading(config, random_weights(config), INT4, CALIBRATED["gptq"], WINDOWS, lambda *_: None)
    assert (read.floats, read.codes.keys()) == (found.floats, found.codes.keys())
