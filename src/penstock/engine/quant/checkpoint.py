"""A quantized model as a Hugging Face folder in GPTQ's layout, which other servers load, too.

For each quantized matrix `NAME.weight` of the source:

    NAME.qweight  int32 [inputs / n, outputs]   n = 32 / bits codes in a word, the first input in its lowest bits
    NAME.qzeros   int32 [groups, outputs / n]   zero points less one, packed along the outputs
    NAME.scales   float16 [groups, outputs]
    NAME.g_idx    int32 [inputs]                the group of each input

All other tensors are copied: matrices in 16 bits, what scales were folded into as float32. `config.json` gains a
`quantization_config`; matrices that stayed in float are listed there under `dynamic`, as GPTQModel does. The zero points of
Penstock's own methods are never 0, which this layout cannot say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from penstock.core.errors import UserError
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.table import naming_of
from penstock.engine.models.weights import needs
from penstock.engine.quant.calibration import Outcome
from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.gptq import DAMPING
from penstock.engine.quant.quantized import Quantized

WEIGHTS = "model.safetensors"
_WORD_BITS = 32


def write_weights(folder: Path, config: ModelConfig, stored: Iterable[tuple[str, Tensor]], outcome: Outcome) -> list[str]:
    """Write all tensors of a checkpoint, `stored` as it is and with what `outcome` changed. The names of matrices left in float.

    Raises UserError when the file cannot be written.
    """
    parts = Parts(config, outcome)
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored:
        tensors.update(parts.replaced(name, tensor))
    try:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} cannot be written: {error}", hint="is the disk full?") from error
    (folder / WEIGHTS).chmod(0o644)  # it is made readable by its owner only
    return parts.floats


def write_config(folder: Path, raw: Mapping[str, object], form: WeightFormat, method: str, floats: list[str]) -> None:
    """config.json of the source, and how it is quantized now."""
    quantization: dict[str, object] = {
        "quant_method": "gptq",
        "bits": form.bits,
        "group_size": form.group or -1,
        "sym": not form.asymmetrical,
        "desc_act": False,
        "checkpoint_format": "gptq",
        "damp_percent": DAMPING,
        "lm_head": False,
        "meta": {"quantizer": "penstock", "method": method},
    }
    if floats:
        quantization["dynamic"] = {f"-:^{re.escape(name.removesuffix('.weight'))}$": {} for name in floats}
    dtype = "bfloat16" if "bfloat16" in (raw.get("torch_dtype"), raw.get("dtype")) else "float16"
    kept = {key: value for key, value in raw.items() if key not in ("torch_dtype", "dtype")}
    (folder / "config.json").write_text(json.dumps({**kept, "torch_dtype": dtype, "quantization_config": quantization}, indent=2) + "\n")


class Parts:
    """What an outcome means for each tensor of the checkpoint, which has q, k and v apart where the model has them fused."""

    def __init__(self, config: ModelConfig, outcome: Outcome) -> None:
        self.floats: list[str] = []
        self._canonical = naming_of(config.architecture).canonical
        self._codes: dict[str, Quantized] = {}
        self._changed: dict[str, Tensor] = {}
        for whole in needs(config):
            rows = [shape[0] for shape in whole.parts.values()]
            if whole.name in outcome.codes:
                self._codes |= zip(whole.parts, _split(outcome.codes[whole.name], rows), strict=True)
            elif whole.name in outcome.floats:
                self.floats += whole.parts
            elif whole.name in outcome.norms:
                self._changed[whole.name] = outcome.norms[whole.name] - whole.offset
            elif whole.name in outcome.biases:
                self._changed |= zip(whole.parts, torch.split(outcome.biases[whole.name], rows), strict=True)

    def replaced(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """What stands in the new file for a tensor of the old one."""
        known = self._canonical(name)
        codes = self._codes.get(known)
        if codes is not None and codes.shape[0] * codes.bits % _WORD_BITS == 0 and codes.shape[1] * codes.bits % _WORD_BITS == 0:
            yield from ((f"{name.removesuffix('weight')}{part}", value) for part, value in pack(codes).items())
        elif codes is not None:  # no whole words
            self.floats.append(known)
            yield name, codes.dequantize(torch.float16)
        elif known in self._changed:
            yield name, self._changed[known].float().clone()
        else:
            yield name, tensor.half() if tensor.dtype == torch.float32 and tensor.dim() > 1 else tensor.contiguous()


def pack(weight: Quantized) -> dict[str, Tensor]:
    """One matrix in GPTQ's four tensors."""
    groups = weight.scales.shape[1]
    scales = weight.scales.float()
    minima = weight.zero * scales if weight.minima is None else weight.minima.float()
    zeros = torch.where(scales == 0, float(weight.zero), minima / scales).round_().clamp_(1, 1 << weight.bits)
    codes, group_of = weight.codes, torch.arange(groups, dtype=torch.int32).repeat_interleave(weight.group)
    if weight.order is not None:
        order = weight.order.long()
        codes = torch.empty_like(codes).index_copy_(1, order, codes)
        group_of = torch.empty_like(group_of).index_copy_(0, order, group_of)
    return {
        "qweight": _words(codes, weight.bits).t().contiguous(),
        "qzeros": _words((zeros - 1).to(torch.uint8).t().contiguous(), weight.bits),
        "scales": weight.scales.t().clone(memory_format=torch.contiguous_format),
        "g_idx": group_of,
    }


def _words(codes: Tensor, bits: int) -> Tensor:
    """codes [rows, count] uint8 -> int32 [rows, count * bits / 32], the first code in the lowest bits."""
    octets = codes if bits == 8 else codes[:, ::2] | codes[:, 1::2] << 4
    return octets.flatten().view(torch.int32).view(len(codes), -1)


def _split(weight: Quantized, rows: list[int]) -> list[Quantized]:
    minima = [None] * len(rows) if weight.minima is None else torch.split(weight.minima, rows)
    parts = zip(torch.split(weight.codes, rows), torch.split(weight.scales, rows), minima, strict=True)
    return [Quantized(codes, scales, least, weight.bits, weight.order) for codes, scales, least in parts]
