"""Quantizing a model while it reads a text: each matrix, as its turn comes, sees what the quantized ones before it give.

All windows of the text go through the model together, as the sequences of one step. So the inputs of a matrix are all there
when it is first needed: statistics are taken, its codes chosen, and from there on it is what its codes say. One forward pass
in all, and memory for the activations of one layer. For methods that look at what the float model would have, all windows are
there twice: the first half of the tokens meets float weights, the second half what became of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from penstock.core.errors import Bug
from penstock.engine.kernels.kv import KVCache
from penstock.engine.kernels.protocol import AttentionInputs, Linear
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.weights import Weights
from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.inputs import Inputs
from penstock.engine.quant.methods import Method
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import round_to_nearest
from penstock.engine.quant.sites import Site, sites

Progress = Callable[[str, int, int], None]  # stage, done, in all


@dataclass(slots=True)
class Outcome:
    """What quantizing a model changed. Names are those of `models.weights`."""

    codes: dict[str, Quantized] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)  # complete weights, as the model uses them
    biases: dict[str, Tensor] = field(default_factory=dict)
    floats: list[str] = field(default_factory=list)  # matrices whose rows do not divide into groups


@torch.inference_mode()
def quantize_plainly(config: ModelConfig, weights: Weights, form: WeightFormat, progress: Progress) -> Outcome:
    """Round all layers to nearest. `weights` are floats, and stay as they are."""
    outcome, todo = Outcome(), list(sites(config, weights))
    for done, site in enumerate(todo, 1):
        if form.fits(_floats(site.linear).shape[1]):
            outcome.codes[site.name] = round_to_nearest(_floats(site.linear), form)
        else:
            outcome.floats.append(site.name)
        progress("quantizing", done, len(todo))
    return outcome


@torch.inference_mode()
def quantize_reading(
    config: ModelConfig, weights: Weights, form: WeightFormat, method: Method, windows: Sequence[Sequence[int]], progress: Progress
) -> Outcome:
    """Quantize all layers by `method`, reading windows of token ids, all of one length. `weights` are floats, and used up."""
    length = len(windows[0])
    kernels = _Reading(list(sites(config, weights)), form, method, progress)
    decoder = Decoder(config, weights, kernels, length)
    together = [*windows, *windows] if method.looks_at_floats else windows
    count = len(together)
    decoder.forward(torch.tensor(together).flatten(), _together(count, length), _one_layer(config, weights, count, length))
    return kernels.outcome


def _together(count: int, length: int) -> AttentionInputs:
    """`count` sequences of `length` new tokens, each in a KV block of its own."""
    return AttentionInputs(
        query_lens=[length] * count,
        context_lens=[length] * count,
        block_tables=torch.arange(count)[:, None],
        slots=torch.arange(count * length),
        positions=torch.arange(length).repeat(count),
        block_size=length,
    )


def _one_layer(config: ModelConfig, weights: Weights, count: int, length: int) -> KVCache:
    """A cache whose layers share their memory: none is looked at once the next has begun."""
    cache = KVCache.allocate(config, count, length, weights.dtype, "cpu")
    return KVCache(cache.keys[:1] * config.num_layers, cache.values[:1] * config.num_layers, length)


class _Reading(ReferenceKernels):
    """The reference, which quantizes each matrix of the layers when it is first multiplied."""

    def __init__(self, todo: list[Site], form: WeightFormat, method: Method, progress: Progress) -> None:
        self.outcome = Outcome()
        self._sites = {id(site.linear): site for site in todo}
        self._by_name = {site.name: site for site in todo}
        self._form, self._method, self._progress = form, method, progress

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        site = self._sites.get(id(linear))
        if site is None:
            raise Bug("a matrix is multiplied that is of no layer")
        weight = _floats(linear)
        if not self._form.fits(weight.shape[1]):
            self.outcome.floats.append(site.name)
            return super().linear(x, linear)
        first = len(x) // 2 if self._method.looks_at_floats else 0
        exact = super().linear(x[:first], linear)
        inputs, x = self._settled(site, Inputs.of(x[first:], x[:first] if first else None), x[first:])
        codes = self._method.codes(weight, inputs, self._form)
        self.outcome.codes[site.name] = codes
        weight.copy_(codes.dequantize())
        self._progress("quantizing", len(self.outcome.codes) + len(self.outcome.floats), len(self._sites))
        return torch.cat([exact, super().linear(x, linear)])

    def _settled(self, site: Site, inputs: Inputs, x: Tensor) -> tuple[Inputs, Tensor]:
        """The inputs once scales have been moved into the matrix, where the method does that here."""
        scales_of, reach = self._method.scales, self._method.reach
        if scales_of is None or (site.norm is None and (reach != "all" or site.source not in self.outcome.codes)):
            return inputs, x
        weight = _floats(site.linear)
        scales = scales_of(weight, inputs if site.heads is None else inputs.shared(*site.heads), self._form)
        weight.mul_(scales)
        if site.norm is not None and site.norm_weight is not None:
            self.outcome.norms[site.norm] = site.norm_weight.div_(scales)
        elif site.source is not None:
            self._divide_rows(site, scales)
        return inputs.divided(scales), x / scales.to(x.dtype)

    def _divide_rows(self, site: Site, scales: Tensor) -> None:
        """Divide the rows that make a site's inputs: their codes stay, their scales take it."""
        source = self._by_name[str(site.source)]
        codes = self.outcome.codes[source.name]
        if site.heads is not None:
            shared, times, size = site.heads
            scales = scales.view(shared, times, size)[:, 0].flatten()
        for values in (codes.scales, codes.minima, source.linear.bias):
            if values is not None and site.rows is not None:
                part = values[site.rows]
                part.div_(scales.view(-1, *[1] * (part.dim() - 1)))
        if source.linear.bias is not None:
            self.outcome.biases[source.name.removesuffix("weight") + "bias"] = source.linear.bias


def _floats(linear: Linear) -> Tensor:
    if not isinstance(linear.weight, Tensor):
        raise Bug("a matrix to be quantized is not in floats")
    return linear.weight
