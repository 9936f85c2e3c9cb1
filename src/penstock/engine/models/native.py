"""The decoder as a program of native operations: described once, when a model is loaded, and run in one call per step.

    embed ─► angles ─► layers ─► norm ─► hidden
    layer:  norm ─► qkv ─► rope and store ─► attention ─► quantize ─► o ─► add, norm ─► gate-up ─► gate ─► down ─► (add)
                                                                                       or experts (`native_experts`)

The same model as `models.decoder`, operation for operation; activations are float32 between operations, and inside those
that multiply whatever the matrix wants. An update is added to the residual stream by the norm that follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from penstock.core.errors import Bug
from penstock.engine.kernels.cpu import structs
from penstock.engine.kernels.cpu.kv import KVLayout, obstacle
from penstock.engine.kernels.cpu.library import Pool, Program
from penstock.engine.kernels.cpu.packed import Packed, packed
from penstock.engine.kernels.cpu.structs import Operation
from penstock.engine.kernels.kv import KVCache
from penstock.engine.kernels.protocol import AttentionInputs, Experts, GatedMLP, Linear
from penstock.engine.models.config import Activation, ModelConfig
from penstock.engine.models.native_experts import ExpertLayer, ExpertRoom, Shared
from penstock.engine.models.rope import attention_factor, frequencies
from penstock.engine.models.weights import Layer, Weights

HEAD_ROWS = 128  # rows of logits made at a time
LONGEST_ROW = 2**20  # floats, of which one row must fit a thread's scratch memory (`source/worker.h`)
_LONGEST_WINDOW = 2**31 - 1  # tokens

_ACTIVATIONS: Mapping[Activation, int] = MappingProxyType({"silu": 0, "gelu": 1, "gelu_tanh": 2})


def why_not_native(config: ModelConfig, block_size: int) -> str | None:
    """What of a model or its KV cache the native operations cannot do; None: they can do it all."""
    moe = config.moe
    row = max(config.hidden_size, config.intermediate_size, *(() if moe is None else (moe.intermediate_size, 2 * moe.num_experts)))
    if row > LONGEST_ROW:
        return f"a row of {row} numbers is longer than {LONGEST_ROW}"
    return obstacle(config.head_dim, block_size)


def kv_layout(config: ModelConfig, kv_format: str, block_size: int) -> KVLayout:
    """How one layer's keys and values are stored."""
    return KVLayout(kv_format, kv_heads=config.num_kv_heads, head_dim=config.head_dim, block_size=block_size)


class _Room:
    """Memory between operations, for steps of up to `tokens`; the system gives it as it is first used."""

    def __init__(self, config: ModelConfig, weights: Weights, pool: Pool, tokens: int) -> None:
        def floats(size: int) -> Tensor:
            return torch.empty(tokens, size)

        self.tokens = tokens
        self.x, self.update, self.hidden = floats(config.hidden_size), floats(config.hidden_size), floats(config.hidden_size)
        self.qkv, self.attended = floats(config.q_size + 2 * config.kv_size), floats(config.q_size)
        self.gate_up = floats(2 * config.intermediate_size)
        experts = {i: layer.mlp for i, layer in enumerate(weights.layers) if isinstance(layer.mlp, Experts)}
        self.experts = {i: ExpertLayer(layer, pool.library) for i, layer in experts.items()}
        self.pairs = ExpertRoom(list(experts.values()), pool.library, tokens) if experts else None
        matrices = [packed(linear.weight).matrix for layer in weights.layers for linear in _linears(layer)]
        matrices += [layer.router.matrix for layer in self.experts.values()]
        self.activations = torch.empty(max(pool.library.activation_bytes(matrix, tokens) for matrix in matrices), dtype=torch.uint8)
        ropes = {False: config.rope, True: config.windowed_rope or config.rope}
        self.angles = {
            windowed: (floats(ropes[windowed].dim // 2), floats(ropes[windowed].dim // 2))
            for windowed in {window is not None for window in config.windows}
        }


class NativeDecoder:
    """A loaded model. Holds its weights and the memory of one step, and no state of any sequence: that is the `KVCache`.

    `max_tokens` is the largest step. What `forward` and `logits` return is overwritten by their next call.
    """

    def __init__(
        self, config: ModelConfig, weights: Weights, pool: Pool, *, kv_format: str = "fp32", served_len: int, max_tokens: int
    ) -> None:
        self.config = config
        self.pool = pool
        self._weights, self._kv_format = weights, kv_format
        self._room = _Room(config, weights, pool, max_tokens)
        self._ropes = {False: config.rope, True: config.windowed_rope or config.rope}
        self._frequencies = {windowed: frequencies(self._ropes[windowed], served_len) for windowed in self._room.angles}
        self._embedding_multiplier = float(config.embedding_multiplier)
        self._logits = torch.empty(HEAD_ROWS, config.vocab_size)
        self._head = self._head_program()
        self._bound: tuple[KVCache, Program] | None = None

    def allocate_kv(self, num_blocks: int, block_size: int) -> KVCache:
        """Zeroed room for `num_blocks * block_size` tokens; each tensor [num_blocks, bytes of a block] as `KVLayout` says."""
        layout = kv_layout(self.config, self._kv_format, block_size)
        keys, values = ([layout.allocate(num_blocks) for _ in range(self.config.num_layers)] for _ in ("keys", "values"))
        return KVCache(keys, values, block_size)

    # -- the two calls of a step

    def forward(self, token_ids: Tensor, inputs: AttentionInputs, kv: KVCache) -> Tensor:
        """token_ids [tokens] int64 -> hidden states [tokens, hidden] for `logits`. Writes the tokens' keys and values to `kv`."""
        if len(token_ids) > self._room.tokens:
            raise Bug(f"a step of {len(token_ids)} tokens for a decoder made for {self._room.tokens}")
        lens = torch.tensor([inputs.query_lens, inputs.context_lens]) if inputs.lens is None else inputs.lens
        tables = inputs.block_tables
        step = structs.Step(
            tokens=len(token_ids),
            seqs=len(inputs.query_lens),
            token_ids=token_ids.data_ptr(),
            positions=inputs.positions.data_ptr(),
            slots=inputs.slots.data_ptr(),
            query_lens=lens.data_ptr(),
            context_lens=lens.data_ptr() + lens.stride(0) * lens.itemsize,
            tables=tables.data_ptr(),
            max_blocks=tables.stride(0),
        )
        self.pool.run(self._program(kv), step)
        return self._room.hidden[: len(token_ids)]

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden], as `forward` gave them -> [rows, vocab] float32."""
        if len(hidden) > HEAD_ROWS:
            return torch.cat([self.logits(rows).clone() for rows in torch.split(hidden, HEAD_ROWS)])
        self._head_rows[: len(hidden)] = hidden
        self.pool.run(self._head, structs.Step(tokens=len(hidden)))
        return self._logits[: len(hidden)]

    # -- the description

    def _program(self, kv: KVCache) -> Program:
        if self._bound is None or self._bound[0] is not kv:
            self._bound = kv, Program(list(self._operations(kv)), self._weights, self._room, self._frequencies)
        return self._bound[1]

    def _operations(self, kv: KVCache) -> Iterator[Operation]:
        room, weights = self._room, self._weights
        yield structs.Embed(multiplier=self._embedding_multiplier, matrix=packed(weights.embedding).matrix, x=room.x.data_ptr())
        for windowed, (cos, sin) in room.angles.items():
            yield structs.Angles(
                count=cos.shape[1],
                factor=attention_factor(self._ropes[windowed]),
                frequencies=self._frequencies[windowed].data_ptr(),
                cos=cos.data_ptr(),
                sin=sin.data_ptr(),
            )
        out_norm: Tensor | None = None
        for index, layer in enumerate(weights.layers):
            yield self._norm(layer.attention_norm, packed(layer.qkv.weight), updated=index > 0, out_norm=out_norm)
            yield from self._attention(index, layer, kv)
            if isinstance(layer.mlp, Experts):
                yield from self._experts(index, layer)
            else:
                yield from self._mlp(layer, layer.mlp)
            out_norm = layer.mlp_out_norm
        yield self._norm(weights.norm, None, updated=bool(weights.layers), out_norm=out_norm)

    def _attention(self, index: int, layer: Layer, kv: KVCache) -> Iterator[Operation]:
        config, room, window = self.config, self._room, self.config.windows[index]
        cos, sin = room.angles[window is not None]
        cache = kv_layout(config, self._kv_format, kv.block_size).struct(kv.keys[index], kv.values[index])
        yield self._linear(layer.qkv, room.qkv)
        yield structs.Rope(
            heads=config.num_heads,
            dim=2 * cos.shape[1],
            eps=config.norm_eps,
            qkv=room.qkv.data_ptr(),
            norm=_address(layer.qk_norm),
            cos=cos.data_ptr(),
            sin=sin.data_ptr(),
            kv=cache,
        )
        yield structs.Attention(
            heads=config.num_heads,
            scale=config.attention_scale,
            window=min(window or 0, _LONGEST_WINDOW),
            softcap=config.attention_softcap or 0.0,
            qkv=room.qkv.data_ptr(),
            kv=cache,
            out=room.attended.data_ptr(),
        )
        yield structs.Quantize(x=room.attended.data_ptr(), target=packed(layer.o.weight).matrix, activations=room.activations.data_ptr())
        yield self._linear(layer.o, room.update)

    def _mlp(self, layer: Layer, mlp: GatedMLP) -> Iterator[Operation]:
        room = self._room
        yield self._norm(layer.mlp_norm, packed(mlp.gate_up.weight), updated=True, out_norm=layer.attention_out_norm)
        yield self._linear(mlp.gate_up, room.gate_up)
        yield structs.Gate(
            activation=_ACTIVATIONS[self.config.activation],
            gate_up=room.gate_up.data_ptr(),
            target=packed(mlp.down.weight).matrix,
            activations=room.activations.data_ptr(),
        )
        yield self._linear(mlp.down, room.update)

    def _experts(self, index: int, layer: Layer) -> Iterator[Operation]:
        room, experts = self._room, self._room.experts[index]
        if room.pairs is None:
            raise Bug("there are experts and no room for them")
        norm = self._norm(layer.mlp_norm, experts.router, updated=True, out_norm=layer.attention_out_norm)
        norm.hidden = room.hidden.data_ptr()  # the experts take it from there
        yield norm
        shared = Shared(room.hidden.data_ptr(), room.activations.data_ptr(), room.update.data_ptr())
        yield from experts.operations(room.pairs, shared, _ACTIVATIONS[self.config.activation])

    def _norm(self, weight: Tensor, target: Packed | None, *, updated: bool, out_norm: Tensor | None) -> structs.Norm:
        """Add the last update, then make what `target` multiplies; without a target, the hidden states."""
        room = self._room
        return structs.Norm(
            size=self.config.hidden_size,
            eps=self.config.norm_eps,
            alpha=self.config.residual_multiplier,
            x=room.x.data_ptr(),
            update=room.update.data_ptr() if updated else None,
            update_weight=_address(out_norm),
            weight=weight.data_ptr(),
            hidden=room.hidden.data_ptr() if target is None else None,
            target=structs.Matrix() if target is None else target.matrix,
            activations=None if target is None else room.activations.data_ptr(),
        )

    def _linear(self, linear: Linear, out: Tensor) -> Operation:
        return structs.Linear(
            matrix=packed(linear.weight).matrix,
            activations=self._room.activations.data_ptr(),
            bias=_address(linear.bias),
            out=out.data_ptr(),
        )

    def _head_program(self) -> Program:
        config, head = self.config, self._weights.head
        matrix = packed(head.weight).matrix
        self._head_rows = torch.empty(HEAD_ROWS, config.hidden_size)
        activations = torch.empty(self.pool.library.activation_bytes(matrix, HEAD_ROWS), dtype=torch.uint8)
        operations: list[Operation] = [
            structs.Quantize(x=self._head_rows.data_ptr(), target=matrix, activations=activations.data_ptr()),
            structs.Linear(
                matrix=matrix,
                activations=activations.data_ptr(),
                bias=_address(head.bias),
                out=self._logits.data_ptr(),
            ),
        ]
        if config.logits_divisor != 1.0 or config.logits_softcap is not None:
            operations.append(
                structs.Finish(
                    size=config.vocab_size,
                    divisor=config.logits_divisor,
                    softcap=config.logits_softcap or 0.0,
                    x=self._logits.data_ptr(),
                )
            )
        return Program(operations, activations)


def _linears(layer: Layer) -> list[Linear]:
    """Those that all tokens go through."""
    mlp = [] if isinstance(layer.mlp, Experts) else [layer.mlp.gate_up, layer.mlp.down]
    return [layer.qkv, layer.o, *mlp]


def _address(tensor: Tensor | None) -> int | None:
    if tensor is not None and (tensor.dtype is not torch.float32 or not tensor.is_contiguous()):
        raise Bug(f"the native kernels were given {tensor.dtype} of strides {tensor.stride()} where they read float32")
    return None if tensor is None else tensor.data_ptr()
