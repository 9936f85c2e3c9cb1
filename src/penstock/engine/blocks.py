"""Paged KV memory: a pool of blocks with reference counts, and the prefix tree over them.

A block holds the keys and values of `block_size` consecutive tokens of one sequence. Who owns a block:

    free ──allocate──▶ held (refs ≥ 1) ──release──▶ free            not in the tree
                        │ insert                ▲
                        ▼                       │ evict (oldest leaf first)
                       held and in the tree ──release──▶ idle (refs = 0, still in the tree)
                        ▲                                 │
                        └──────────── match ◀─────────────┘

The tree is radix by block: a node is a full block, its identity the chained digest of its tokens, its ancestors' and
the tenant's salt. Whoever holds a block holds its ancestors too, so an idle block never has a held descendant, and
every idle block can be reclaimed by taking leaves in order of last use. (Paged KV: Kwon et al. 2023, "PagedAttention";
radix sharing: Zheng et al. 2024, "SGLang".)
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from penstock.core.errors import Bug


@dataclass(slots=True, eq=False)
class Block:
    """`block_size` KV slots. `digest` is set exactly while the block is in the tree."""

    id: int
    refs: int = 0
    digest: bytes | None = None
    tokens: tuple[int, ...] = ()
    salt: str = ""
    parent: Block | None = None
    num_children: int = 0
    last_used: int = 0

    def same(self, tokens: tuple[int, ...], salt: str, parent: Block | None) -> bool:
        """Whether this block really holds these tokens behind this parent: a digest alone is not trusted."""
        return self.tokens == tokens and self.salt == salt and self.parent is parent


def chain(digests: list[bytes], tokens: Sequence[int], salt: str, block_size: int) -> None:
    """Extend `digests` in place to one per full block of `tokens`."""
    parent = digests[-1] if digests else blake2b(salt.encode(), digest_size=16).digest()
    for start in range(len(digests) * block_size, len(tokens) - block_size + 1, block_size):
        content = array("q", tokens[start : start + block_size]).tobytes()
        parent = blake2b(parent + content, digest_size=16).digest()
        digests.append(parent)


class BlockPool:
    """All blocks of one engine. Every allocation is all or none; `audit` proves that none is lost."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.blocks = [Block(i) for i in range(num_blocks)]
        self._free = self.blocks[::-1]
        self._tree: dict[bytes, Block] = {}
        self._num_idle = 0
        self._leaves: list[tuple[int, int]] = []  # heap of (last_used, id); stale entries are skipped
        self._clock = 0

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out: free ones and idle ones."""
        return len(self._free) + self._num_idle

    @property
    def num_held(self) -> int:
        return self.num_blocks - self.num_available

    def allocate(self, count: int) -> list[Block] | None:
        """`count` blocks with one reference each, or None and nothing changed when there are not as many."""
        if count > self.num_available:
            return None
        while len(self._free) < count:
            self._evict()
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            block.refs = 1
        return taken

    def release(self, blocks: Iterable[Block]) -> None:
        """Drop one reference of each; what nobody holds becomes idle (in the tree) or free."""
        self._clock += 1
        for block in blocks:
            if block.refs <= 0:
                raise Bug(f"KV block {block.id} released without a reference")
            block.refs -= 1
            if block.refs:
                continue
            if block.digest is None:
                self._free.append(block)
            else:
                self._num_idle += 1
                block.last_used = self._clock
                self._offer(block)

    def match(self, digests: Sequence[bytes], tokens: Sequence[int], salt: str) -> list[Block]:
        """The longest chain of cached blocks behind `tokens`; takes no reference."""
        found: list[Block] = []
        parent: Block | None = None
        for index, digest in enumerate(digests):
            block = self._tree.get(digest)
            start = index * self.block_size
            if block is None or not block.same(tuple(tokens[start : start + self.block_size]), salt, parent):
                break
            found.append(block)
            parent = block
        return found

    def retain(self, blocks: Iterable[Block]) -> None:
        """Take one reference of each block of a match."""
        for block in blocks:
            if block.refs == 0:
                self._num_idle -= 1
            block.refs += 1

    def insert(self, block: Block, digest: bytes, tokens: tuple[int, ...], salt: str, parent: Block | None) -> Block:
        """Enter a held, fully computed block into the tree and return the block to hold for it.

        When an equal block is there already, that one is retained and returned and `block` is released, so that a
        holder always holds the tree's own chain. After a digest collision `block` stays outside the tree.
        """
        known = self._tree.get(digest)
        if known is not None:
            if known is block or not known.same(tokens, salt, parent):
                return block
            self.retain([known])
            self.release([block])
            return known
        if parent is not None:
            if parent.digest is None:
                return block  # behind a collision nothing can be found anyway
            parent.num_children += 1
        block.digest, block.tokens, block.salt, block.parent = digest, tokens, salt, parent
        self._tree[digest] = block
        return block

    def audit(self, holders: Iterable[Sequence[Block]]) -> None:
        """Raise `Bug` unless references, tree and free list account for every block, given all block tables."""
        refs = [0] * self.num_blocks
        for table in holders:
            for block in table:
                refs[block.id] += 1
        children = [0] * self.num_blocks
        for block in self._tree.values():
            if block.parent is not None:
                children[block.parent.id] += 1
        for block in self.blocks:
            if block.refs != refs[block.id]:
                raise Bug(f"KV block {block.id} counts {block.refs} references, {refs[block.id]} sequences hold it")
            if block.num_children != children[block.id]:
                raise Bug(f"KV block {block.id} counts {block.num_children} children, the tree has {children[block.id]}")
            if block.refs and block.parent is not None and not block.parent.refs:
                raise Bug(f"KV block {block.id} is held, its parent {block.parent.id} is not")
        idle = sum(1 for block in self._tree.values() if not block.refs)
        held = sum(1 for count in refs if count)
        if idle != self._num_idle or len(self._free) + idle + held != self.num_blocks:
            raise Bug(f"{self.num_blocks} KV blocks, but {len(self._free)} free + {idle} idle + {held} held")

    def _offer(self, block: Block) -> None:
        if block.refs or block.num_children:
            return
        heapq.heappush(self._leaves, (block.last_used, block.id))
        if len(self._leaves) > 4 * self.num_blocks:  # mostly stale: a prefix that is used again and again
            leaves = (b for b in self._tree.values() if not b.refs and not b.num_children)
            self._leaves = [(b.last_used, b.id) for b in leaves]
            heapq.heapify(self._leaves)

    def _evict(self) -> None:
        """Free the idle leaf that was used longest ago."""
        while self._leaves:
            last_used, block_id = heapq.heappop(self._leaves)
            block = self.blocks[block_id]
            if block.digest is None or block.refs or block.num_children or block.last_used != last_used:
                continue  # it was used again, grew a child, or is gone: its newer entry, if any, counts
            self._forget(block)
            return
        raise Bug(f"{self._num_idle} idle KV blocks, but no leaf among them")

    def _forget(self, block: Block) -> None:
        if block.digest is None:
            raise Bug(f"KV block {block.id} is not in the prefix tree")
        del self._tree[block.digest]
        parent = block.parent
        block.digest, block.tokens, block.salt, block.parent = None, (), "", None
        self._num_idle -= 1
        self._free.append(block)
        if parent is not None:
            parent.num_children -= 1
            self._offer(parent)
