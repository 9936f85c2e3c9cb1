"""The block pool and its prefix tree, seen from outside."""

from __future__ import annotations

import pytest

from penstock.core.errors import Bug
from penstock.engine.blocks import Block, BlockPool, chain

SIZE = 2


def digests(tokens: list[int], salt: str = "") -> list[bytes]:
    made: list[bytes] = []
    chain(made, tokens, salt, SIZE)
    return made


def hold(pool: BlockPool, tokens: list[int], salt: str = "") -> list[Block]:
    """Compute `tokens` as a sequence would: allocate, then enter each full block into the tree."""
    count = len(tokens) // SIZE
    blocks = pool.allocate(count)
    assert blocks is not None
    for index, digest in enumerate(digests(tokens, salt)):
        parent = blocks[index - 1] if index else None
        blocks[index] = pool.insert(blocks[index], digest, tuple(tokens[index * SIZE : (index + 1) * SIZE]), salt, parent)
    return blocks


def test_allocation_is_all_or_none() -> None:
    pool = BlockPool(3, SIZE)
    assert pool.allocate(4) is None
    assert pool.num_available == 3
    assert len(pool.allocate(3) or []) == 3
    assert pool.allocate(1) is None


def test_a_released_prefix_is_found_again_and_only_as_far_as_it_agrees() -> None:
    pool = BlockPool(8, SIZE)
    pool.release(hold(pool, [1, 2, 3, 4, 5, 6]))
    other = [1, 2, 3, 4, 9, 9]
    assert len(pool.match(digests(other), other, "")) == 2


def test_another_tenant_finds_nothing() -> None:
    pool = BlockPool(8, SIZE)
    pool.release(hold(pool, [1, 2, 3, 4], salt="a"))
    assert pool.match(digests([1, 2, 3, 4], "b"), [1, 2, 3, 4], "b") == []


def test_a_hit_compares_tokens_not_only_digests() -> None:
    pool = BlockPool(8, SIZE)
    pool.release(hold(pool, [1, 2]))
    assert pool.match(digests([1, 2]), [7, 8], "") == []


def test_eviction_takes_the_least_recently_used_leaf_and_never_a_parent_first() -> None:
    pool = BlockPool(4, SIZE)
    old, new = [1, 1, 2, 2], [1, 1, 3, 3]
    pool.release(hold(pool, old))
    pool.release(hold(pool, new))  # shares its first block
    assert pool.num_held == 0
    taken = pool.allocate(2)  # one block was still free, so one leaf goes: the older one
    assert taken is not None
    assert len(pool.match(digests(old), old, "")) == 1
    assert len(pool.match(digests(new), new, "")) == 2
    pool.audit([taken])


def test_equal_blocks_computed_twice_become_one() -> None:
    pool = BlockPool(4, SIZE)
    first, second = hold(pool, [1, 2]), hold(pool, [1, 2])
    assert first == second
    assert pool.num_held == 1
    pool.audit([first, second])


def test_a_prefix_used_very_often_does_not_grow_memory() -> None:
    pool = BlockPool(2, SIZE)
    for _ in range(1000):
        pool.release(hold(pool, [1, 2]))
    assert len(pool._leaves) <= 4 * pool.num_blocks + 1


def test_audit_notices_a_lost_block() -> None:
    pool = BlockPool(2, SIZE)
    assert pool.allocate(1)
    with pytest.raises(Bug, match="references"):
        pool.audit([])


def test_releasing_twice_is_a_bug() -> None:
    pool = BlockPool(2, SIZE)
    taken = pool.allocate(1)
    assert taken is not None
    pool.release(taken)
    with pytest.raises(Bug, match="without a reference"):
        pool.release(taken)
