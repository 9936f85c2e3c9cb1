"""Writes ggml's K-quants, which the `gguf` package can only read: the plainest choice of scales, in the real layout."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Kind = gguf.GGMLQuantizationType


def quantize(array: Array, kind: gguf.GGMLQuantizationType) -> Array:
    """array [..., cols] float32 -> [..., bytes] uint8, in any type that the package writes, or Q4_K, Q5_K or Q6_K."""
    writers = {Kind.Q4_K: q4_k, Kind.Q5_K: q5_k, Kind.Q6_K: q6_k}
    if kind not in writers:
        return gguf.quants.quantize(array, kind)
    return writers[kind](array.reshape(-1, 256)).reshape(*array.shape[:-1], -1)


def q4_k(blocks: Array) -> Array:
    codes, head = with_minima(blocks, 15)
    return np.concatenate([head, halves(codes)], axis=1)


def q5_k(blocks: Array) -> Array:
    codes, head = with_minima(blocks, 31)
    fifth = np.bitwise_or.reduce((codes.reshape(-1, 8, 32) >> 4) << np.arange(8, dtype=np.uint8).reshape(8, 1), axis=1)
    return np.concatenate([head, fifth, halves(codes & 15)], axis=1)


def q6_k(blocks: Array) -> Array:
    groups = blocks.reshape(-1, 16, 16)
    scales = np.abs(groups).max(-1) / 31
    d = (scales.max(-1, keepdims=True) / 127).astype(np.float16)
    steps = np.round(scales / d).astype(np.int8)
    codes = np.clip(np.round(groups / (d.astype(np.float32) * steps)[..., None]), -32, 31).astype(np.int8).astype(np.uint8) + 32
    codes = codes.reshape(-1, 2, 4, 32)  # halves of 128, quarters of 32
    low = (codes[:, :, :2] & 15) | (codes[:, :, 2:] & 15) << 4
    high = np.bitwise_or.reduce((codes >> 4) << np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1), axis=2)
    return np.concatenate([low.reshape(-1, 128), high.reshape(-1, 64), steps.view(np.uint8), d.view(np.uint8)], axis=1)


def with_minima(blocks: Array, levels: int) -> tuple[Array, Array]:
    """Codes [blocks, 256], and the 16 bytes of scales and minima that Q4_K and Q5_K begin with."""
    groups = blocks.reshape(-1, 8, 32)
    minima = np.maximum(-groups.min(-1), 0)
    scales = (groups.max(-1) + minima) / levels
    d, dmin = ((part.max(-1, keepdims=True) / 63).astype(np.float16) for part in (scales, minima))
    scales, minima = np.round(scales / d).astype(np.uint8), np.round(minima / dmin).astype(np.uint8)
    step, least = (d.astype(np.float32) * scales)[..., None], (dmin.astype(np.float32) * minima)[..., None]
    codes = np.clip(np.round((groups + least) / step), 0, levels).astype(np.uint8).reshape(-1, 256)
    first = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    second = minima[:, :4] | (minima[:, 4:] >> 4) << 6
    third = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
    return codes, np.concatenate([d.view(np.uint8), dmin.view(np.uint8), first, second, third], axis=1)


def halves(codes: Array) -> Array:
    """Of each 64 numbers, the first 32 in the low halves of 32 bytes."""
    pairs = codes.reshape(-1, 4, 2, 32)
    return (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
