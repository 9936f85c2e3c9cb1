"""Checkpoints that were quantized by GPTQ or AWQ: each matrix as a few tensors of codes packed into words of 32 bits.

    GPTQ   qweight [inputs / n, outputs]   n = 32 / bits inputs in a word, the first in its lowest bits
           qzeros  [groups, outputs / n]   zero points; less one, but in `gptq_v2`
           scales  [groups, outputs]
           g_idx   [inputs]                the group of each input; may be absent where groups are in order
    AWQ    qweight [inputs, outputs / 8]   8 outputs in a word, in the order 0 2 4 6 1 3 5 7
           qzeros, scales                  as in GPTQ, but in that order

weight = scale * (code - zero). Such codes are what `Quantized` holds, so they are only unpacked; zero * scale is rounded to
float16. Formats: AutoGPTQ (https://github.com/AutoGPTQ/AutoGPTQ), GPTQModel and AutoAWQ's "gemm". Frantar et al., GPTQ
(arXiv:2210.17323); Lin et al., AWQ (arXiv:2306.00978).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor

from penstock.core.errors import LoadError
from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.quantized import Quantized
from penstock.files import ModelFiles

_BITS = (4, 8)
_OTHER_FILES = ("quantize_config.json", "quant_config.json")  # of AutoGPTQ and AutoAWQ, from before config.json said it
_WORD_BITS = 32
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PARTS = ("qweight", "qzeros", "scales", "g_idx")


class Packing(Struct, frozen=True, kw_only=True):
    """How a checkpoint's codes are packed."""

    is_awq: bool
    bits: int
    zero_offset: int  # to be added to the zeros of the file
    is_symmetrical: bool  # as far as it says; zeros that are not are found


def packing_of(files: ModelFiles) -> Packing | None:
    """What the folder says of its quantization, None when it says nothing. LoadError names what cannot be read."""
    raw = _settings(files)
    if raw is None:
        return None
    method = str(raw.get("quant_method", "awq" if "w_bit" in raw else "gptq"))
    if method not in ("gptq", "awq"):
        raise _refused(method)
    layouts = ("gemm",) if method == "awq" else ("gptq", "gptq_v2")
    said = (raw[key] for key in ("version", "checkpoint_format", "format") if key in raw)
    layout = str(next(said, layouts[0])).lower()
    if layout not in layouts:
        raise _refused(f"{method} in the format {layout!r}")
    bits = raw.get("bits", raw.get("w_bit", 0))
    if bits not in (_BITS[:1] if method == "awq" else _BITS):
        raise _refused(f"{method} of {bits} bits")
    return Packing(
        is_awq=method == "awq",
        bits=int(bits),
        zero_offset=1 if layout == "gptq" else 0,
        is_symmetrical=method == "gptq" and raw.get("sym", True) is True,
    )


def _settings(files: ModelFiles) -> dict[str, Any] | None:
    config = files.json("config.json") or {}
    text = config.get("text_config")
    for place in (config, text if isinstance(text, dict) else {}):
        if isinstance(found := place.get("quantization_config"), dict):
            return found
    return next((found for name in _OTHER_FILES if (found := files.json(name)) is not None), None)


def _refused(what: str) -> LoadError:
    return LoadError(
        f"the checkpoint is quantized ({what}), which is not supported",
        hint="use GPTQ of 4 or 8 bits, AWQ (gemm), a GGUF file, or the unquantized checkpoint",
    )


def matrix_parts(name: str) -> tuple[str, str] | None:
    """The matrix and the part of it that a tensor is, by its name; None for a tensor that stands for itself."""
    stem, _, part = name.rpartition(".")
    return (f"{stem}.weight", part) if part in _PARTS else None


def unpack(tensors: Iterable[tuple[str, Tensor]], names: Iterable[str], packing: Packing) -> Iterator[tuple[str, Tensor | Quantized]]:
    """Matrices whose parts have all come, and other tensors as they are. `names` are those of all tensors that will come.

    LoadError when parts are missing or do not fit each other.
    """
    expected: dict[str, set[str]] = {}
    for matrix, part in filter(None, map(matrix_parts, names)):
        expected.setdefault(matrix, set()).add(part)
    for matrix, parts in expected.items():
        if lacking := {"qweight", "qzeros", "scales"} - parts:
            raise LoadError(f"{matrix} is quantized and lacks its {min(lacking)}", hint="the download may be incomplete")
    pending: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors:
        split = matrix_parts(name)
        if split is None:
            yield name, tensor
            continue
        matrix, part = split
        pending.setdefault(matrix, {})[part] = tensor
        if pending[matrix].keys() == expected[matrix]:
            yield matrix, unpack_matrix(matrix, pending.pop(matrix), packing)


def unpack_matrix(name: str, parts: Mapping[str, Tensor], packing: Packing) -> Quantized:
    """One matrix. LoadError where its parts do not fit each other, or are not what they should be."""
    for part in ("qweight", "qzeros"):
        if parts[part].dtype != torch.int32:
            raise LoadError(f"{part} of {name} has type {parts[part].dtype}", hint="codes are packed into int32: quantize with that")
    _, form = matrix_format(name, {part: tuple(tensor.shape) for part, tensor in parts.items()}, packing)
    order = None
    if packing.is_awq:
        codes, zeros = _outputs(parts["qweight"]), _outputs(parts["qzeros"])
    else:
        codes = _codes(parts["qweight"].t(), form.bits)
        zeros = _codes(parts["qzeros"], form.bits).t()
        order = _order(name, parts.get("g_idx"), len(parts["scales"]))
    zeros = (zeros + packing.zero_offset) & form.levels
    scales = parts["scales"].t().half().contiguous()
    is_symmetrical = packing.is_symmetrical and bool((zeros == 1 << (form.bits - 1)).all())
    minima = None if is_symmetrical else (zeros * scales.float()).half()
    if order is not None:
        codes = codes.index_select(1, order)
    return Quantized(codes, scales, minima, form.bits, None if order is None else order.int())


def matrix_format(name: str, shapes: Mapping[str, tuple[int, ...]], packing: Packing) -> tuple[tuple[int, int], WeightFormat]:
    """The shape [outputs, inputs] and the format of a matrix, from the shapes of its parts alone. LoadError as `unpack_matrix`."""
    if any(len(shape) != (1 if part == "g_idx" else 2) for part, shape in shapes.items()):
        raise _misshaped(name, shapes)
    words, (groups, outputs) = shapes["qweight"], shapes["scales"]
    bits = packing.bits
    if packing.is_awq:
        inputs = words[0]
    else:  # some modules may have other bits than config.json says; then g_idx tells
        inputs = shapes["g_idx"][0] if "g_idx" in shapes else words[0] * _WORD_BITS // bits
        bits = words[0] * _WORD_BITS // max(inputs, 1)
    expected = {
        "qweight": (inputs, outputs * bits // _WORD_BITS) if packing.is_awq else (inputs * bits // _WORD_BITS, outputs),
        "qzeros": (groups, outputs * bits // _WORD_BITS),
        "scales": (groups, outputs),
        "g_idx": (inputs,),
    }
    if bits not in _BITS or outputs * bits % _WORD_BITS or groups < 1 or any(shape != expected[part] for part, shape in shapes.items()):
        raise _misshaped(name, shapes)
    if inputs % groups:
        raise LoadError(f"{name} has {inputs} inputs, which do not divide into its {groups} groups", hint="use another group size")
    return (outputs, inputs), WeightFormat(bits, inputs // groups, not packing.is_symmetrical)


def _misshaped(name: str, shapes: Mapping[str, tuple[int, ...]]) -> LoadError:
    found = ", ".join(f"{part} {list(shape)}" for part, shape in shapes.items())
    return LoadError(
        f"the parts of {name} do not fit each other: {found}",
        hint="the file may be damaged, or quantized in another way than its config.json says",
    )


def _codes(words: Tensor, bits: int) -> Tensor:
    """words [rows, count] of 32 bits -> [rows, count * 32 / bits] uint8, lowest bits first."""
    octets = _octets(words)
    return octets if bits == 8 else torch.stack([octets & 15, octets >> 4], dim=-1).flatten(1)


def _octets(words: Tensor) -> Tensor:
    """words [rows, count] -> [rows, 4 * count] uint8"""
    return words.reshape(-1).view(torch.uint8).view(len(words), -1)


def _outputs(words: Tensor) -> Tensor:
    """AWQ's words [rows, outputs / 8] -> [outputs, rows] uint8."""
    rows, count = words.shape
    octets = _octets(words.t()).view(count, rows, 4)
    codes = torch.empty(count, 8, rows, dtype=torch.uint8)
    for i in range(4):
        codes[:, _AWQ_ORDER[2 * i]] = octets[:, :, i] & 15
        codes[:, _AWQ_ORDER[2 * i + 1]] = octets[:, :, i] >> 4
    return codes.view(8 * count, rows)


def _order(name: str, groups_of: Tensor | None, num_groups: int) -> Tensor | None:
    """The inputs, group by group; None when that is their own order. `groups_of` [inputs]."""
    if groups_of is None:
        return None
    groups_of = groups_of.long()
    size = len(groups_of) // num_groups
    order = groups_of.argsort(stable=True)
    if not torch.equal(groups_of[order], torch.arange(num_groups).repeat_interleave(size)):
        raise LoadError(f"g_idx of {name} does not give each of its {num_groups} groups {size} inputs", hint="quantize the model again")
    return None if torch.equal(order, torch.arange(len(order))) else order
