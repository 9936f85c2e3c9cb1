"""The memory plan: what fits where, decided once before anything large is allocated.

    available ─► 90 % usable ─► weights │ workspace of the largest step │ KV blocks │ rest
                                                                          └ all that is left on CUDA;
                                                                            on a CPU what max_num_seqs wants, at most
                                                                            4 GiB and a quarter of what is free

Every "auto" of an `EngineSpec` ends here. What the user asked for is never changed: if it does not fit, the error names
the nearest value that does.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from penstock.core.config import Device, DType, EngineSpec
from penstock.core.errors import ConfigError, MemoryPlanError
from penstock.engine.messages import MemoryPlan
from penstock.engine.models.config import ModelConfig

USABLE = 0.9  # the rest is for the interpreter, the allocator's gaps and what estimates miss
CPU_KV_BYTES = 4 * 2**30
CPU_KV_SHARE = 0.25
SEQUENCE_TOKENS = 512  # KV that one sequence may be expected to need
NUM_SEQS = 256
STEP_TOKENS = 2048
CPU_STEP_FLOPS = 3e11  # so that a step of prompt tokens keeps decoding sequences waiting for a second at most
MIN_STEP_TOKENS = 256
GATHERED_KEYS = 65_536  # `kernels.paged` copies no more keys at a time, unless one sequence is longer
SCORED_ROWS = 128  # rows of logits made at a time for prompt log-probabilities


def resolve_device(device: Device) -> torch.device:
    """The device to run on; "auto" is CUDA where there is one. Raises ConfigError when CUDA is asked for and absent."""
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError("device is 'cuda', but torch finds no CUDA device", hint="use device 'auto' or 'cpu', or a CUDA build of torch")
    return torch.device("cuda" if has_cuda and device != "cpu" else "cpu")


def resolve_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """The type of weights and KV; "auto" is bfloat16 on CUDA and float32 on a CPU."""
    match dtype:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            return torch.float16
        case "auto":
            return torch.bfloat16 if device.type == "cuda" else torch.float32


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`; for a CPU, within the control groups of this process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = int(psutil.virtual_memory().available)
    return min([free, *cgroup_free_bytes(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def cgroup_free_bytes(root: Path, membership: Path) -> list[int]:
    """What each control group around this process leaves it, in bytes; none where nothing is limited (v1 and v2)."""
    try:
        entries = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return []
    free: list[int] = []
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        if controllers == "memory":
            free += _free_along(root / "memory", path, ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
        elif not controllers:
            free += _free_along(root, path, ("memory.max", "memory.current", "inactive_file"))
    return free


def _free_along(root: Path, path: str, names: tuple[str, str, str]) -> list[int]:
    """Free bytes of the group at `path` and of each one above it, where they are limited. Page cache counts as free."""
    limit_name, usage_name, cache_name = names
    group = root / path.lstrip("/")
    free = []
    for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
        limit, usage = _number(folder / limit_name), _number(folder / usage_name)
        if limit is not None and usage is not None:
            free.append(max(0, limit - usage + _statistic(folder / "memory.stat", cache_name)))
    return free


def _number(file: Path) -> int | None:
    """The number in a file; None where there is none, as in "max"."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _statistic(file: Path, name: str) -> int:
    try:
        lines = dict(line.split() for line in file.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(lines.get(name, 0))


@dataclass(frozen=True, slots=True)
class Holding:
    """How a model and its KV are held in memory, and what that takes."""

    device: torch.device
    dtype: torch.dtype  # of hidden states
    weights: str  # what float weights become, such as "int8"; a checkpoint that is quantized stays as it is
    weights_bytes: int
    kv_format: str
    kv_token_bytes: int  # of one token, all layers
    kernels: str  # a native build's name, or "torch"

    @property
    def is_native(self) -> bool:
        return self.kernels != "torch"


def plan_memory(config: ModelConfig, spec: EngineSpec, holding: Holding, available_bytes: int) -> MemoryPlan:
    """Resolve every "auto" of `spec` for this model. Raises MemoryPlanError, with values that fit, when it cannot be done."""
    return _Planner(config, spec, holding, available_bytes).plan()


def native_activation_bytes(config: ModelConfig, *, step_tokens: int, num_seqs: int) -> int:
    """As `activation_bytes`, for the native kernels: they gather nothing, and keep what they multiply as floats and as codes."""
    width = 3 * config.hidden_size + 2 * config.q_size + 2 * config.kv_size + 2 * config.intermediate_size + config.head_dim
    width += max(config.hidden_size, config.q_size, config.intermediate_size)
    if config.moe is not None:
        inner = config.moe.intermediate_size
        width += config.moe.top_k * (max(2 * inner, config.hidden_size) + max(inner, config.hidden_size))
    logits = 4 * (num_seqs + SCORED_ROWS) * config.vocab_size
    return 4 * step_tokens * width + logits


def activation_bytes(config: ModelConfig, dtype: torch.dtype, *, step_tokens: int, num_seqs: int, context: int) -> int:
    """The most workspace that one step takes besides weights and KV, in bytes (an estimate from above).

    Hidden states and the widest layer for `step_tokens`; keys and values gathered for attention, with a mask over
    `context` tokens; logits of `num_seqs` rows, once more in the sampler.
    """
    width = 4 * config.hidden_size + config.q_size + 2 * config.kv_size
    mlp = 3 * config.intermediate_size
    if config.moe is not None:
        mlp = max(mlp, config.moe.top_k * (3 * config.moe.intermediate_size + 2 * config.hidden_size))
    layer = step_tokens * (width + mlp + 2 * config.q_size) * dtype.itemsize
    gathered = 2 * max(min(GATHERED_KEYS, num_seqs * context), context) * config.kv_size * dtype.itemsize
    scores = 3 * 4 * config.num_heads if config.attention_softcap is not None else 1 + dtype.itemsize
    logits = 2 * 4 * max(num_seqs, SCORED_ROWS) * config.vocab_size
    return layer + 2 * gathered + step_tokens * context * scores + logits


@dataclass(frozen=True, slots=True)
class _Planner:
    config: ModelConfig
    spec: EngineSpec
    holding: Holding
    available: int

    def plan(self) -> MemoryPlan:
        context = self._context()
        activations = self._activation_bytes(context)
        num_blocks = self._kv_bytes(context, self._usable - self._weights - activations) // self._block_bytes
        return MemoryPlan(
            device=str(self.holding.device),
            dtype=str(self.holding.dtype).removeprefix("torch."),
            weights=self.holding.weights,
            kv_format=self.holding.kv_format,
            kernels=self.holding.kernels,
            available_bytes=self.available,
            weights_bytes=self._weights,
            activation_bytes=activations,
            kv_bytes=num_blocks * self._block_bytes,
            block_size=self.spec.block_size,
            num_blocks=num_blocks,
            max_model_len=context,
            max_step_tokens=self._step_tokens,
            max_num_seqs=min(self._num_seqs, num_blocks),
        )

    # -- what is decided

    def _context(self) -> int:
        """max_model_len: what is asked for, or what model and memory allow."""
        trained, asked = self.config.max_position_embeddings, self.spec.max_model_len
        shortest, fitting = min(trained, SEQUENCE_TOKENS), self._fitting_context()
        if asked != "auto" and asked > trained:
            raise ConfigError(f"max_model_len is {asked}, the model has positions for {trained}", hint=f"use at most {trained}")
        if self._needed(min(shortest, self._kv_tokens)) > self._usable:
            raise self._too_large(shortest)
        wanted = shortest if asked == "auto" else asked
        if wanted > fitting:
            raise self._too_long(wanted, fitting)
        return max(shortest, min(fitting, self._modest_kv_bytes // self._block_bytes * self.spec.block_size)) if asked == "auto" else asked

    def _kv_bytes(self, context: int, room: int) -> int:
        """KV memory: what is asked for, or as much of `room` as is sensible on this device."""
        asked = self.spec.kv_bytes
        if asked != "auto":
            if asked > room:
                raise MemoryPlanError(
                    f"kv_bytes is {size(asked)}, {size(room)} are free beside weights and workspace",
                    hint=f"use --kv-bytes {room // 2**20}MiB",
                )
            return asked
        if self.holding.device.type != "cpu":
            return room
        modest = min(self._whole_blocks(self._num_seqs * SEQUENCE_TOKENS), self._modest_kv_bytes)
        return min(max(modest, self._whole_blocks(context)), room)

    @property
    def _modest_kv_bytes(self) -> int:
        """The most KV that is taken without being asked for."""
        if self.holding.device.type != "cpu" or self.spec.kv_bytes != "auto":
            return self._usable
        return min(CPU_KV_BYTES, int(self.available * CPU_KV_SHARE))

    @property
    def _num_seqs(self) -> int:
        return min(NUM_SEQS, self._step_tokens) if self.spec.max_num_seqs == "auto" else self.spec.max_num_seqs

    @property
    def _step_tokens(self) -> int:
        if self.spec.max_step_tokens != "auto":
            return self.spec.max_step_tokens
        if self.holding.device.type != "cpu":
            return STEP_TOKENS
        affordable = int(CPU_STEP_FLOPS / (2 * self.config.num_parameters))
        return min(max(_power_of_two_below(affordable), MIN_STEP_TOKENS), STEP_TOKENS)

    # -- what things take

    def _fitting_context(self) -> int:
        """The longest context, of those that the model has positions for, of which one sequence fits."""
        contexts = range(1, min(self.config.max_position_embeddings, self._kv_tokens) + 1)
        return bisect_right(contexts, self._usable, key=self._needed)

    def _needed(self, context: int) -> int:
        """Bytes for one sequence of `context` tokens, all told."""
        return self._weights + self._activation_bytes(context) + self._whole_blocks(context)

    @property
    def _usable(self) -> int:
        return int(self.available * USABLE)

    @property
    def _weights(self) -> int:
        return self.holding.weights_bytes

    @property
    def _token_bytes(self) -> int:
        return self.holding.kv_token_bytes

    @property
    def _block_bytes(self) -> int:
        return self._token_bytes * self.spec.block_size

    @property
    def _kv_tokens(self) -> int:
        """Tokens that kv_bytes has room for, or that the model has positions for where nothing is asked."""
        asked = self.spec.kv_bytes
        return self.config.max_position_embeddings if asked == "auto" else asked // self._block_bytes * self.spec.block_size

    def _activation_bytes(self, context: int) -> int:
        tokens, seqs = self._step_tokens, self._num_seqs
        if self.holding.is_native:
            return native_activation_bytes(self.config, step_tokens=tokens, num_seqs=seqs)
        return activation_bytes(self.config, self.holding.dtype, step_tokens=tokens, num_seqs=seqs, context=context)

    def _whole_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.spec.block_size) * self._block_bytes

    # -- what does not fit

    def _too_large(self, shortest: int) -> MemoryPlanError:
        smaller = self._smaller_weights()
        return MemoryPlanError(
            f"the model needs {size(self._weights)} for weights and {size(self._needed(shortest) - self._weights)} to work with, "
            f"{size(self._usable)} of {size(self.available)} may be used on {self.holding.device.type}",
            hint=f"use a smaller model{f' or {smaller}' if smaller else ''}",
        )

    def _too_long(self, wanted: int, fitting: int) -> MemoryPlanError:
        """The KV cache cannot hold one sequence of the wanted length."""
        asked, needed = self.spec.kv_bytes, self._whole_blocks(wanted)
        free = max(self._usable - self._weights - self._activation_bytes(wanted), 0)
        hints = [f"--max-model-len {_round_below(fitting)}"] if fitting else []
        if asked != "auto" and needed <= free:
            hints.append(f"--kv-bytes {-(-needed // 2**20)}MiB")
        elif smaller := self._smaller_kv():
            hints.append(smaller)
        limit = f"{size(free)} are free" if asked == "auto" else f"kv_bytes is {size(asked)}"
        return MemoryPlanError(
            f"max_model_len {wanted} needs {size(needed)} of KV, {limit}",
            hint=f"use {' or '.join(hints)}" if hints else "use a smaller model",
        )

    def _smaller_weights(self) -> str | None:
        if self.holding.is_native:
            return None if self.holding.weights.startswith("int4") else "--weights int4"
        return "--dtype bfloat16, which halves it" if self.holding.dtype == torch.float32 else None

    def _smaller_kv(self) -> str | None:
        if self.holding.is_native:
            return None if self.holding.kv_format == "int4" else "--kv-format int4"
        return "--dtype bfloat16, which halves it" if self.holding.dtype == torch.float32 else None


def _power_of_two_below(number: int) -> int:
    return 1 << max(number, 1).bit_length() - 1


def _round_below(num_tokens: int) -> int:
    """A rounder number just below, where that costs little."""
    return num_tokens // 1024 * 1024 if num_tokens >= 8192 else num_tokens


def size(count: int) -> str:
    """Bytes for people: "3.1 GiB"."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
