"""The structs of `source/types.h`, field for field. `library` compares their sizes with those of the loaded library."""

from __future__ import annotations

from ctypes import Structure, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum
from typing import ClassVar


class Format(IntEnum):
    """How the numbers of a matrix are stored."""

    FLOAT32 = 0
    FLOAT16 = 1
    BFLOAT16 = 2
    INT8 = 3
    INT4 = 4


class KVNumbers(IntEnum):
    """How keys and values are stored."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3


class Matrix(Structure):
    _fields_ = (
        ("format", c_int32), ("rows", c_int32), ("cols", c_int32), ("group", c_int32),
        ("codes", c_void_p), ("scales", c_void_p), ("minima", c_void_p), ("order", c_void_p),
    )  # fmt: skip


class KV(Structure):
    _fields_ = (
        ("format", c_int32), ("kv_heads", c_int32), ("head_dim", c_int32), ("block_size", c_int32),
        ("keys", c_void_p), ("values", c_void_p),
    )  # fmt: skip


class Step(Structure):
    _fields_ = (
        ("tokens", c_int32), ("seqs", c_int32), ("token_ids", c_void_p), ("positions", c_void_p), ("slots", c_void_p),
        ("query_lens", c_void_p), ("context_lens", c_void_p), ("tables", c_void_p), ("max_blocks", c_int32), ("unused", c_int32),
    )  # fmt: skip


class Operation(Structure):
    """One operation of a program; its kind is set when it is made."""

    KIND: ClassVar[int]

    def __init__(self, **fields: object) -> None:
        super().__init__(kind=self.KIND, **fields)


class Embed(Operation):
    KIND = 0
    _fields_ = (("kind", c_int32), ("multiplier", c_float), ("matrix", Matrix), ("x", c_void_p))


class Angles(Operation):
    KIND = 1
    _fields_ = (
        ("kind", c_int32), ("count", c_int32), ("factor", c_float),
        ("frequencies", c_void_p), ("cos", c_void_p), ("sin", c_void_p),
    )  # fmt: skip


class Norm(Operation):
    KIND = 2
    _fields_ = (
        ("kind", c_int32), ("size", c_int32), ("eps", c_float), ("alpha", c_float),
        ("x", c_void_p), ("update", c_void_p), ("update_weight", c_void_p), ("weight", c_void_p), ("hidden", c_void_p),
        ("target", Matrix), ("activations", c_void_p),
    )  # fmt: skip


class Linear(Operation):
    KIND = 3
    _fields_ = (
        ("kind", c_int32), ("unused", c_int32), ("matrix", Matrix),
        ("activations", c_void_p), ("bias", c_void_p), ("out", c_void_p),
    )  # fmt: skip


class Rope(Operation):
    KIND = 4
    _fields_ = (
        ("kind", c_int32), ("heads", c_int32), ("dim", c_int32), ("eps", c_float),
        ("qkv", c_void_p), ("norm", c_void_p), ("cos", c_void_p), ("sin", c_void_p), ("kv", KV),
    )  # fmt: skip


class Attention(Operation):
    KIND = 5
    _fields_ = (
        ("kind", c_int32), ("heads", c_int32), ("scale", c_float), ("window", c_int32), ("softcap", c_float), ("unused", c_int32),
        ("qkv", c_void_p), ("kv", KV), ("out", c_void_p),
    )  # fmt: skip


class Quantize(Operation):
    KIND = 6
    _fields_ = (("kind", c_int32), ("unused", c_int32), ("x", c_void_p), ("target", Matrix), ("activations", c_void_p))


class Gate(Operation):
    KIND = 7
    _fields_ = (("kind", c_int32), ("activation", c_int32), ("gate_up", c_void_p), ("target", Matrix), ("activations", c_void_p))


class Finish(Operation):
    KIND = 8
    _fields_ = (("kind", c_int32), ("size", c_int32), ("divisor", c_float), ("softcap", c_float), ("x", c_void_p))


class Route(Operation):
    KIND = 9
    _fields_ = (
        ("kind", c_int32), ("experts", c_int32), ("top_k", c_int32), ("renormalize", c_int32),
        ("scores", c_void_p), ("chosen", c_void_p), ("weights", c_void_p),
    )  # fmt: skip


class Sort(Operation):
    KIND = 10
    _fields_ = (
        ("kind", c_int32), ("experts", c_int32), ("top_k", c_int32), ("unused", c_int32),
        ("chosen", c_void_p), ("offsets", c_void_p), ("places", c_void_p), ("origins", c_void_p),
    )  # fmt: skip


class Scatter(Operation):
    KIND = 11
    _fields_ = (
        ("kind", c_int32), ("top_k", c_int32), ("x", c_void_p), ("chosen", c_void_p), ("origins", c_void_p),
        ("matrices", c_void_p), ("activations", c_void_p),
    )  # fmt: skip


class Experts(Operation):
    KIND = 12
    _fields_ = (
        ("kind", c_int32), ("count", c_int32),
        ("matrices", c_void_p), ("offsets", c_void_p), ("activations", c_void_p), ("out", c_void_p),
    )  # fmt: skip


class ExpertGate(Operation):
    KIND = 13
    _fields_ = (
        ("kind", c_int32), ("activation", c_int32), ("top_k", c_int32), ("unused", c_int32), ("gate_up", c_void_p),
        ("chosen", c_void_p), ("origins", c_void_p), ("matrices", c_void_p), ("activations", c_void_p),
    )  # fmt: skip


class Combine(Operation):
    KIND = 14
    _fields_ = (
        ("kind", c_int32), ("size", c_int32), ("top_k", c_int32), ("unused", c_int32),
        ("y", c_void_p), ("places", c_void_p), ("weights", c_void_p), ("out", c_void_p),
    )  # fmt: skip


class DrawnRow(Structure):
    _fields_ = (("temperature", c_float), ("top_p", c_float), ("min_p", c_float), ("top_k", c_int32), ("seed", c_int64))


class Draw(Operation):
    KIND = 15
    _fields_ = (("kind", c_int32), ("size", c_int32), ("logits", c_void_p), ("rows", c_void_p), ("tokens", c_void_p))


ALL = (
    Matrix,
    KV,
    Step,
    Embed,
    Angles,
    Norm,
    Linear,
    Rope,
    Attention,
    Quantize,
    Gate,
    Finish,
    Route,
    Sort,
    Scatter,
    Experts,
    ExpertGate,
    Combine,
    DrawnRow,
    Draw,
)
