"""Compiles the native CPU kernels: one source, one shared library per instruction set.

    python scripts/build_native.py      build them in place, after a change of the source; CXX names the compiler

Installing the package does the same (`hatch_build.py`).
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KERNELS = Path(__file__).parents[1] / "src/penstock/engine/kernels/cpu"
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-ffp-contract=fast", "-fvisibility=hidden", "-w"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512_VNNI = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"]


class CannotBuild(Exception):
    """There is no compiler, or it failed; the message says which and why."""


def build() -> list[Path]:
    """Compile a library for each instruction set of this processor's family. Raises CannotBuild."""
    levels: dict[str, list[str]] = {"portable": []}
    if platform.machine().lower() in ("x86_64", "amd64"):
        levels |= {"avx2": AVX2, "avx512vnni": AVX512_VNNI}
    targets = {name: KERNELS / f"lib/penstock-{name}.so" for name in levels}
    (KERNELS / "lib").mkdir(exist_ok=True)
    compiler = find_compiler()
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda name: _compile(compiler, levels[name], targets[name]), targets))


def find_compiler() -> list[str]:
    """The command of CXX, or the first compiler on the PATH. Raises CannotBuild."""
    if named := os.environ.get("CXX"):
        return shlex.split(named)
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return [path]
    raise CannotBuild("no C++ compiler (c++, g++ or clang++) is on the PATH")


def _compile(compiler: list[str], flags: list[str], target: Path) -> Path:
    """Written beside its place and then moved there: a running engine keeps the library that it has."""
    unfinished = target.with_suffix(f".{os.getpid()}")
    command = [*compiler, *FLAGS, *flags, str(KERNELS / "source/program.cpp"), "-o", str(unfinished)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        unfinished.replace(target)
    except OSError as error:
        raise CannotBuild(f"{compiler[0]} cannot be run: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        raise CannotBuild(f"{compiler[0]} failed: {next((line for line in lines if 'error' in line), error.stderr[-200:])}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    try:
        print("\n".join(map(str, build())))
    except CannotBuild as failure:
        sys.exit(str(failure))
