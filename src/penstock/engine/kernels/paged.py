"""Varlen attention over a paged cache in plain torch: gather, then one scaled-dot-product call per group of similar sequences.

    step ──► buckets by query length (powers of two) ──► groups by context length ──► gather blocks, attend, put back

Padding never changes a result: a padded query repeats its sequence's last one and is dropped, and a padded key is masked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock.engine.kernels.protocol import AttentionInputs, AttentionKind

WORTH_SPLITTING = 4_096  # padded keys that cost more to copy than another group costs to launch
CPU_WORKSPACE = 4 << 20  # bytes of gathered keys and values at a time: stays in cache, and is never handed back to the system
GPU_WORKSPACE = 1 << 30


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences attended to in one call, padded to the longest query and the longest context among them."""

    tokens: Tensor | None  # [seqs * query_len] index in the step of each query; None: all of them, in order
    rows: Tensor | None  # [seqs * query_len] where each result goes: as `tokens`, but padding goes to a spare last row
    blocks: Tensor  # [seqs, blocks] ids
    query_len: int
    num_keys: int  # per sequence, once the last block's unused end is cut
    mask: Tensor | None  # [seqs, 1, query_len, num_keys] bool: True is seen; None: all is seen, but for `causal`
    causal: bool

    def tiles(self, num_seqs: int) -> Iterator[Group]:
        """The same in pieces of up to `num_seqs` sequences."""
        for begin in range(0, len(self.blocks), num_seqs):
            rows = slice(begin, begin + num_seqs)
            yield replace(self, blocks=self.blocks[rows], mask=None if self.mask is None else self.mask[rows])


class PagedAttention:
    """The groups of one step, for each attention window in use."""

    def __init__(self, inputs: AttentionInputs, windows: Collection[int | None]) -> None:
        self._block_size = inputs.block_size
        self._workspace = CPU_WORKSPACE if inputs.slots.device.type == "cpu" else GPU_WORKSPACE
        longest = max(inputs.context_lens)
        bounds = {window: window if window is not None and window < longest else None for window in windows}
        groups = {bound: _Planner(inputs, bound).groups() for bound in set(bounds.values())}
        self._groups = {window: groups[bound] for window, bound in bounds.items()}

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, kind: AttentionKind) -> Tensor:
        out = queries.new_empty(len(queries) + 1, *queries.shape[1:])
        for group in self._groups[kind.window]:
            if group.tokens is None or group.rows is None:
                return self._attend(queries, keys, values, group, kind)
            out.index_copy_(0, group.rows, self._attend(queries.index_select(0, group.tokens), keys, values, group, kind))
        return out[:-1]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, group: Group, kind: AttentionKind) -> Tensor:
        """queries [seqs * query_len, heads, head_dim] of one group -> the same shape, in tiles that fit the workspace."""
        num_seqs = max(1, self._workspace // (2 * group.num_keys * keys[0].nbytes))
        if num_seqs >= len(group.blocks):
            return self._attend_tile(queries, keys, values, group, kind)
        parts = zip(torch.split(queries, num_seqs * group.query_len), group.tiles(num_seqs), strict=True)
        return torch.cat([self._attend_tile(part, keys, values, tile, kind) for part, tile in parts])

    def _attend_tile(self, queries: Tensor, keys: Tensor, values: Tensor, tile: Group, kind: AttentionKind) -> Tensor:
        k, v = self._gather(keys, tile), self._gather(values, tile)
        if kind.softcap is None:
            return _attend(queries, k, v, tile, kind.scale)
        return _attend_softcapped(queries, k, v, tile, kind.scale, kind.softcap)

    def _gather(self, cache: Tensor, tile: Group) -> Tensor:
        """-> [seqs, kv_heads, num_keys, head_dim]: a view in which the heads of one token are neighbours."""
        _, kv_heads, head_dim = cache.shape
        blocks = cache.view(-1, self._block_size * kv_heads * head_dim).index_select(0, tile.blocks.flatten())
        return blocks.view(len(tile.blocks), -1, kv_heads, head_dim)[:, : tile.num_keys].transpose(1, 2)


def _attend(queries: Tensor, k: Tensor, v: Tensor, group: Group, scale: float) -> Tensor:
    """queries [seqs * query_len, heads, head_dim], k and v [seqs, kv_heads, num_keys, head_dim] -> like queries."""
    if group.query_len == 1:  # queries that share a KV head become rows of one product: nothing is repeated
        q = queries.view(len(group.blocks), k.shape[1], -1, k.shape[3])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask, scale=scale).reshape(queries.shape)
    q = queries.view(len(group.blocks), group.query_len, -1, k.shape[3]).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask, is_causal=group.causal, scale=scale, enable_gqa=True)
    return out.transpose(1, 2).reshape(queries.shape)


def _attend_softcapped(queries: Tensor, k: Tensor, v: Tensor, group: Group, scale: float, cap: float) -> Tensor:
    """As `_attend`, with scores squeezed into (-cap, cap) before the mask (Gemma 2, arXiv:2408.00118)."""
    seqs, kv_heads, num_keys, head_dim = k.shape
    q = queries.view(seqs, group.query_len, kv_heads, -1, head_dim).permute(0, 2, 3, 1, 4)  # [seqs, kv_heads, shared, query, dim]
    scores = q.reshape(seqs, kv_heads, -1, head_dim) @ k.transpose(2, 3) * (scale / cap)
    scores = (torch.tanh(scores) * cap).view(*q.shape[:-1], num_keys).float()
    mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=k.device).tril() if group.causal else group.mask
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(-3), -torch.inf)
    out = scores.softmax(dim=-1).to(v.dtype).view(seqs, kv_heads, -1, num_keys) @ v
    return out.view(q.shape).permute(0, 3, 1, 2, 4).reshape(queries.shape)


class _Planner:
    """Sequences of one step into groups, for one window. A span is what is gathered: tokens from the first visible block on."""

    def __init__(self, inputs: AttentionInputs, window: int | None) -> None:
        self._inputs, self._window = inputs, window
        self._query_lens, self._context_lens = inputs.query_lens, inputs.context_lens
        *starts, self._num_tokens = accumulate(self._query_lens, initial=0)
        firsts = self._first_blocks()
        self._spans = [context - first * inputs.block_size for context, first in zip(self._context_lens, firsts, strict=True)]
        self._lengths = torch.tensor([self._query_lens, self._context_lens, starts, firsts], device=inputs.block_tables.device)

    def groups(self) -> list[Group]:
        return [self._group(rows) for bucket in self._buckets() for rows in _split(bucket, self._spans)]

    def _first_blocks(self) -> list[int]:
        """Per sequence, the first block that any of its queries sees."""
        if self._window is None:
            return [0] * len(self._query_lens)
        lens = zip(self._query_lens, self._context_lens, strict=True)
        return [max(0, context - query - self._window + 1) // self._inputs.block_size for query, context in lens]

    def _buckets(self) -> list[list[int]]:
        """Sequences whose query lengths share a power of two: (1), (2), (3, 4), (5 to 8), …"""
        buckets: dict[int, list[int]] = {}
        for row, query_len in enumerate(self._query_lens):
            buckets.setdefault((query_len - 1).bit_length(), []).append(row)
        return list(buckets.values())

    def _group(self, rows: list[int]) -> Group:
        tables, lengths = self._inputs.block_tables, self._lengths
        whole = len(rows) == len(self._query_lens)
        if not whole:
            index = torch.tensor(rows, device=tables.device)
            tables, lengths = tables[index], lengths[:, index]
        query_len, num_keys = max(self._query_lens[row] for row in rows), max(self._spans[row] for row in rows)
        columns, ends = torch.arange(query_len, device=tables.device), lengths[0].unsqueeze(1)
        queries = columns.minimum(ends - 1)  # [seqs, query_len]
        tokens = (lengths[2].unsqueeze(1) + queries).flatten()
        in_order = whole and query_len * len(rows) == self._num_tokens
        masked = not (self._sees_all(rows) or self._is_fresh(rows))
        return Group(
            tokens=None if in_order else tokens,
            rows=None if in_order else tokens.where((columns < ends).flatten(), self._num_tokens),
            blocks=self._blocks(tables, lengths, num_keys),
            query_len=query_len,
            num_keys=num_keys,
            mask=self._mask(lengths, queries, num_keys) if masked else None,
            causal=query_len > 1 and not masked,
        )

    def _sees_all(self, rows: list[int]) -> bool:
        """One query each, at the end of contexts of one length."""
        return (
            self._window is None
            and all(self._query_lens[row] == 1 for row in rows)
            and len({self._context_lens[row] for row in rows}) == 1
        )  # fmt: skip

    def _is_fresh(self, rows: list[int]) -> bool:
        """Whole contexts are computed in this step: key and query positions coincide, padding included."""
        return self._window is None and all(self._query_lens[row] == self._context_lens[row] for row in rows)

    def _blocks(self, tables: Tensor, lengths: Tensor, num_keys: int) -> Tensor:
        columns = lengths[3].unsqueeze(1) + torch.arange(-(-num_keys // self._inputs.block_size), device=tables.device)
        return tables.gather(1, columns.clamp_(max=tables.shape[1] - 1))

    def _mask(self, lengths: Tensor, queries: Tensor, num_keys: int) -> Tensor:
        """-> [seqs, 1, query_len, num_keys]: a key is seen up to the query's position, and within the window before it."""
        query_lens, context_lens, _, firsts = lengths.unsqueeze(-1)  # each [seqs, 1]
        keys = (firsts * self._inputs.block_size + torch.arange(num_keys, device=queries.device)).unsqueeze(1)
        positions = (context_lens - query_lens + queries).unsqueeze(2)
        mask: Tensor = keys <= positions
        if self._window is not None:
            mask &= keys > positions - self._window
        return mask.unsqueeze(1)


def _split(rows: list[int], spans: list[int]) -> Iterator[list[int]]:
    """Cut `rows` where padding to the longest span would cost more than a further group does."""
    ordered = sorted(rows, key=spans.__getitem__, reverse=True)
    begin = 0
    for end, row in enumerate(ordered):
        longest = spans[ordered[begin]]
        if 2 * spans[row] < longest and (longest - spans[row]) * (len(ordered) - end) > WORTH_SPLITTING:
            yield ordered[begin:end]
            begin = end
    yield ordered[begin:] if begin else rows
