"""The native library: one build per instruction set, of which the best that this processor can run is loaded.

    library = best_library()            None: the package was built without a C++ compiler
    pool = Pool(library, threads=2)
    pool.run(operations, step)          every thread runs every operation; each is over before the next one begins

Calls release the GIL.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_int, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from penstock.core.errors import Bug, LoadError
from penstock.engine.kernels.cpu import structs
from penstock.engine.kernels.cpu.structs import KV, Matrix, Operation, Step

LEVELS = ("portable", "avx2", "avx512vnni")  # each runs on all processors that can run a later one
FOLDER = Path(__file__).parent / "lib"


class Library:
    """One loaded build. Stateless."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._c = ctypes.CDLL(str(_path(name)))
        self._declare()
        self._check_build()

    def codes_bytes(self, matrix: Matrix) -> int:
        return int(self._c.penstock_codes_bytes(byref(matrix)))

    def scales_bytes(self, matrix: Matrix) -> int:
        """Bytes of the packed scales; the minima take as many."""
        return int(self._c.penstock_scales_bytes(byref(matrix)))

    def activation_bytes(self, matrix: Matrix, tokens: int) -> int:
        """Bytes of the inputs of `tokens` tokens, as `matrix` wants them."""
        return int(self._c.penstock_activation_bytes(byref(matrix), tokens))

    def kv_block_bytes(self, kv: KV) -> int:
        """Bytes that the keys of one block take; the values take as many."""
        return int(self._c.penstock_kv_block_bytes(byref(kv)))

    def pack(self, matrix: Matrix, source: int, scales: int | None, minima: int | None) -> None:
        """Fill the buffers of `matrix` from row-major addresses."""
        self._c.penstock_pack(byref(matrix), source, scales, minima)

    def unpack_row(self, matrix: Matrix, row: int, out: int) -> None:
        """Write one row as float32 to the address `out`."""
        self._c.penstock_unpack_row(byref(matrix), row, out)

    def new_pool(self, threads: int) -> int:
        pool = self._c.penstock_pool_new(threads)
        if not pool:
            raise LoadError(f"{threads} threads of the native kernels cannot be started", hint="set engine.threads to fewer, such as 2")
        return int(pool)

    def free_pool(self, pool: int) -> None:
        self._c.penstock_pool_free(pool)

    def run(self, pool: int, operations: ctypes.Array[c_void_p], step: Step) -> None:
        self._c.penstock_run(pool, operations, len(operations), byref(step))

    def _declare(self) -> None:
        c, matrix = self._c, POINTER(Matrix)
        signatures: tuple[tuple[Any, Any, list[Any]], ...] = (
            (c.penstock_level, c_int, []),
            (c.penstock_sizes, c_int, [POINTER(c_int32), c_int]),
            (c.penstock_pool_new, c_void_p, [c_int]),
            (c.penstock_pool_free, None, [c_void_p]),
            (c.penstock_run, None, [c_void_p, c_void_p, c_int, POINTER(Step)]),
            (c.penstock_codes_bytes, c_size_t, [matrix]),
            (c.penstock_scales_bytes, c_size_t, [matrix]),
            (c.penstock_activation_bytes, c_size_t, [matrix, c_int]),
            (c.penstock_kv_block_bytes, c_size_t, [POINTER(KV)]),
            (c.penstock_pack, None, [matrix, c_void_p, c_void_p, c_void_p]),
            (c.penstock_unpack_row, None, [matrix, c_int64, c_void_p]),
        )
        for function, result, arguments in signatures:
            function.restype, function.argtypes = result, arguments

    def _check_build(self) -> None:
        expected = [ctypes.sizeof(struct) for struct in structs.ALL]
        sizes = (c_int32 * len(expected))()
        count = self._c.penstock_sizes(sizes, len(expected))
        if count != len(expected) or list(sizes) != expected:
            raise LoadError(
                f"the native kernels in {_path(self.name)} are of another build than this Python code",
                hint="install the package again, or run `python scripts/build_native.py` in a source tree",
            )


class Program:
    """Operations in order, kept alive with whatever else they point to."""

    def __init__(self, operations: Sequence[Operation], *owned: object) -> None:
        self._operations, self._owned = list(operations), owned
        self.addresses = (c_void_p * len(operations))(*(ctypes.addressof(operation) for operation in operations))


class Pool:
    """Threads that run programs. Used from one thread at a time; the caller's own is one of them."""

    def __init__(self, library: Library, threads: int) -> None:
        self.library, self.threads = library, threads
        self._pool: int | None = None
        self._pool = library.new_pool(threads)

    def run(self, program: Program, step: Step) -> None:
        if self._pool is None:
            raise Bug("a closed pool of threads was asked to run")
        self.library.run(self._pool, program.addresses, step)

    def close(self) -> None:
        if self._pool is not None:
            self.library.free_pool(self._pool)
            self._pool = None

    def __del__(self) -> None:
        self.close()


def libraries() -> list[str]:
    """The builds that are installed and that this processor can run, the best first."""
    if not _path(LEVELS[0]).exists():
        return []
    level = ctypes.CDLL(str(_path(LEVELS[0]))).penstock_level()
    return [name for name in reversed(LEVELS[: level + 1]) if _path(name).exists()]


@cache
def load_library(name: str) -> Library:
    """The build `name`, one of `libraries()`."""
    return Library(name)


def best_library() -> Library | None:
    """The fastest build for this processor. None: the package was installed without native kernels."""
    names = libraries()
    return load_library(names[0]) if names else None


def _path(name: str) -> Path:
    return FOLDER / f"penstock-{name}.so"
