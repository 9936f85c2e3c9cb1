"""A mixture of experts as native operations: one layer's part of the program that `models.native` writes.

    hidden ─► router ─► route ─► sort ─► scatter ─► experts (gate-up) ─► gate ─► experts (down) ─► combine ─► update

A pair is a token and one of the `top_k` experts chosen for it; pairs lie expert by expert.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from penstock.core.errors import LoadError
from penstock.engine.kernels.cpu import structs
from penstock.engine.kernels.cpu.library import Library
from penstock.engine.kernels.cpu.packed import Packed, packed
from penstock.engine.kernels.cpu.structs import Matrix, Operation
from penstock.engine.kernels.protocol import Experts, Linear


class ExpertRoom:
    """Memory between the operations of any layer's experts, for steps of up to `tokens`."""

    def __init__(self, layers: Sequence[Experts], library: Library, tokens: int) -> None:
        count = max(len(layer.mlps) for layer in layers)
        pairs = tokens * max(layer.top_k for layer in layers)
        matrices = [packed(linear.weight).matrix for layer in layers for mlp in layer.mlps for linear in (mlp.gate_up, mlp.down)]
        width = max(matrix.rows for matrix in matrices)
        self.inputs = torch.empty(max(library.activation_bytes(matrix, pairs) for matrix in matrices), dtype=torch.uint8)
        self.outputs = torch.empty(pairs, width)
        self.scores = torch.empty(tokens, count)
        self.chosen, self.places, self.origins = (torch.empty(pairs, dtype=torch.int32) for _ in range(3))
        self.weights = torch.empty(pairs)
        self.offsets = torch.empty(count + 1, dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class Shared:
    """What experts share with the rest of a layer, as addresses: floats of the norm, the router's activations, the update."""

    hidden: int
    activations: int
    update: int


class ExpertLayer:
    """One layer's experts, ready to be described."""

    def __init__(self, experts: Experts, library: Library) -> None:
        self.experts = experts
        self.router = Packed(library, experts.router.float())
        self._gate_up = _table([mlp.gate_up for mlp in experts.mlps])
        self._down = _table([mlp.down for mlp in experts.mlps])

    def operations(self, room: ExpertRoom, shared: Shared, activation: int) -> Iterator[Operation]:
        """From the norm, which left its floats and the router's activations, to the update."""
        count, top_k = len(self.experts.mlps), self.experts.top_k
        chosen, places, origins = room.chosen.data_ptr(), room.places.data_ptr(), room.origins.data_ptr()
        yield structs.Linear(matrix=self.router.matrix, activations=shared.activations, out=room.scores.data_ptr())
        yield structs.Route(
            experts=count,
            top_k=top_k,
            renormalize=self.experts.renormalize,
            scores=room.scores.data_ptr(),
            chosen=chosen,
            weights=room.weights.data_ptr(),
        )
        yield structs.Sort(
            experts=count, top_k=top_k, chosen=chosen, offsets=room.offsets.data_ptr(), places=places, origins=origins
        )  # fmt: skip
        yield structs.Scatter(
            top_k=top_k,
            x=shared.hidden,
            chosen=chosen,
            origins=origins,
            matrices=ctypes.addressof(self._gate_up),
            activations=room.inputs.data_ptr(),
        )
        yield self._multiply(self._gate_up, room)
        yield structs.ExpertGate(
            activation=activation,
            top_k=top_k,
            gate_up=room.outputs.data_ptr(),
            chosen=chosen,
            origins=origins,
            matrices=ctypes.addressof(self._down),
            activations=room.inputs.data_ptr(),
        )
        yield self._multiply(self._down, room)
        yield structs.Combine(
            size=self._down[0].rows,
            top_k=top_k,
            y=room.outputs.data_ptr(),
            places=places,
            weights=room.weights.data_ptr(),
            out=shared.update,
        )

    def _multiply(self, matrices: ctypes.Array[Matrix], room: ExpertRoom) -> Operation:
        return structs.Experts(
            count=len(matrices),
            matrices=ctypes.addressof(matrices),
            offsets=room.offsets.data_ptr(),
            activations=room.inputs.data_ptr(),
            out=room.outputs.data_ptr(),
        )


def _table(linears: Sequence[Linear]) -> ctypes.Array[Matrix]:
    """The experts' matrices side by side. LoadError where they are not all stored alike."""
    matrices = [packed(linear.weight).matrix for linear in linears]
    kinds = {(m.format, m.rows, m.cols, m.group, m.minima is None) for m in matrices}
    if len(kinds) > 1:
        raise LoadError(
            "the experts of one layer are quantized in different ways", hint="use a checkpoint whose experts share one format"
        )  # fmt: skip
    return (Matrix * len(matrices))(*matrices)
