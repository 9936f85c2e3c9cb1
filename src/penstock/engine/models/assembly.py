"""From the tensors of a checkpoint, in any order, to weights: each is finished as soon as its last part has come.

    tensor ─► (quantize) ─► part ─┐
    tensor ─► (quantize) ─► part ─┴─► whole ─► (finish) ─► weight

A part that is still what the file holds stays there, memory-mapped, until its whole is put together. So what is in memory
at a time are the finished weights and the parts of what is not complete, never the model in another form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from math import prod

import torch
from torch import Tensor

from penstock.core.errors import Bug, LoadError
from penstock.engine.kernels.protocol import Weight
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.fuse import fuse
from penstock.engine.models.table import naming_of
from penstock.engine.models.weights import Weights, Whole, arrange, canonical_name, needs
from penstock.engine.quant.quantized import Quantized

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all
Stored = Tensor | Quantized  # what a checkpoint holds
Quantize = Callable[[str, Tensor], Stored]  # of one matrix of the checkpoint, by its name
Finish = Callable[[str, Stored], Weight]  # of one weight matrix, fused where the model has it fused, by its name


@dataclass(frozen=True, slots=True)
class Form:
    """How weights are wanted.

    Float weights become `dtype`, on `device`; None: matrices stay as they are stored, and everything else is float32.
    Beside matrices that `finish` has turned into something else, all other weights are float32.
    Matrices that are stored in few bits stay so, on the CPU, unless `few_bits` is off. `quantize` may turn float matrices
    into few bits as they come. `finish` may turn complete matrices into whatever the kernels want; it copies what it keeps
    of its argument, which may lie in the mapped file.
    """

    dtype: torch.dtype | None
    device: torch.device | str = "cpu"
    few_bits: bool = True
    quantize: Quantize | None = None
    finish: Finish | None = None


class Assembly:
    """Collects the weights of one model."""

    def __init__(self, config: ModelConfig, form: Form) -> None:
        self._config, self._form = config, form
        self._naming = naming_of(config.architecture)
        self._wholes = {name: whole for whole in needs(config) for name in whole.parts}
        self._parts: dict[str, Stored] = {}
        self._done: dict[str, Weight] = {}
        self._dtype = form.dtype or torch.float32

    def weights(self, tensors: Iterable[tuple[str, Stored]], progress: Progress) -> Weights:
        """Take every tensor and give the whole model. LoadError when one is missing, unknown, misshaped or no number."""
        missing, unknown = set(self._wholes), []
        total, done = self._dtype.itemsize * sum(prod(whole.parts[name]) for name, whole in self._wholes.items()), 0
        for name, tensor in tensors:
            name = canonical_name(self._config, self._naming, name)
            if name in missing:
                missing.remove(name)
                self._take(name, tensor)
                progress("weights", done := done + self._dtype.itemsize * prod(tensor.shape), total)
            elif name not in self._wholes and not self._is_idle(name, tensor):
                unknown.append(name)
        _check_complete(self._config.architecture, [name for name in self._wholes if name in missing], unknown)
        return arrange(self._config, self, self._dtype)

    # -- a `Source`, once everything is there

    def matrix(self, whole: Whole) -> Weight:
        return self._done.pop(whole.name)

    def tensor(self, whole: Whole) -> Tensor:
        weight = self._done.pop(whole.name)
        if not isinstance(weight, Tensor):
            raise Bug(f"{whole.name} is in few bits")
        return weight

    # -- one tensor after the other

    def _is_idle(self, name: str, tensor: Stored) -> bool:
        """Whether a tensor that has no place may be left out: some quantizers give every layer a bias, zeros where it had none."""
        return self._naming.is_ignored(name) or (name.endswith(".bias") and isinstance(tensor, Tensor) and not tensor.any())

    def _take(self, name: str, tensor: Stored) -> None:
        whole, quantize = self._wholes[name], self._form.quantize
        _check(name, tensor, whole.parts[name])
        if whole.kind == "matrix" and quantize is not None and isinstance(tensor, Tensor):
            tensor = quantize(name, tensor)
        self._parts[name] = tensor
        if all(part in self._parts for part in whole.parts):
            parts = [self._parts.pop(part) for part in whole.parts]
            self._done[whole.name] = self._matrix(whole, parts) if whole.kind == "matrix" else self._tensor(whole, parts)

    def _matrix(self, whole: Whole, parts: list[Stored]) -> Weight:
        finish, dtype = self._form.finish, self._form.dtype or stored_dtype(parts)
        weight: Stored | None = fuse(parts) if self._form.few_bits else None
        if weight is None:
            first = parts[0]
            is_ready = finish is not None and len(parts) == 1 and isinstance(first, Tensor) and first.dtype == dtype
            weight = first if is_ready else self._floats(whole, parts, dtype)
        return weight if finish is None else finish(whole.name, weight)

    def _tensor(self, whole: Whole, parts: list[Stored]) -> Tensor:
        if whole.kind == "norm":
            return self._floats(whole, parts, torch.float32).add_(whole.offset)
        return self._floats(whole, parts, self._dtype if self._form.finish is None else torch.float32)

    def _floats(self, whole: Whole, parts: list[Stored], dtype: torch.dtype) -> Tensor:
        """A copy of the parts, each straight to its place."""
        joined = torch.empty(whole.shape, dtype=dtype, device=self._form.device)
        rows = joined.view(-1, *parts[0].shape[1:])
        for place, part in zip(torch.split(rows, [part.shape[0] for part in parts]), parts, strict=True):
            place.copy_(part if isinstance(part, Tensor) else part.dequantize())
        return joined


def stored_dtype(parts: list[Stored]) -> torch.dtype:
    """The float type that holds all parts as they are stored. What is in few bits is good for float16, as its scales are."""
    kinds = [part.dtype if isinstance(part, Tensor) else torch.float16 for part in parts]
    return reduce(torch.promote_types, kinds)


def _check(name: str, tensor: Stored, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise LoadError(
            f"tensor {name} has shape {list(tensor.shape)}, its config asks for {list(shape)}",
            hint="the weights and the config do not belong together: get both from one place",
        )
    if isinstance(tensor, Tensor) and not tensor.is_floating_point():
        raise LoadError(
            f"tensor {name} has type {tensor.dtype}",
            hint="its config.json does not say how it is quantized: get the whole folder, a float checkpoint, or a GGUF file",
        )


def _check_complete(architecture: str, missing: list[str], unknown: list[str]) -> None:
    problems = [f"{len(names)} tensors {what} ({_some(names)})" for names, what in ((missing, "missing"), (unknown, "unknown")) if names]
    if problems:
        raise LoadError(
            f"the weights do not fit architecture {architecture}: {', '.join(problems)}",
            hint="the download may be incomplete, or the checkpoint may hold another model than its config says",
        )


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
