"""Install torch into this environment: a CPU build where there is no NVIDIA GPU, the user's own choice where there is one.

On Linux the default wheel of torch brings gigabytes of CUDA libraries. So, on a Linux machine without an NVIDIA GPU, ask for
the `+cpu` build by name: first from the sources that pip is configured with, then from PyTorch's own index, and only when neither
has it take the default wheel. On macOS, on Windows and beside a GPU the default wheel is the right one.

    python scripts/install_torch.py                  decide as above; keep a torch that already fits
    python scripts/install_torch.py torch==2.9.1     install exactly this
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_VERSION = "2.13.0"  # the build that the tests run on
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
RELEASE = re.compile(r"(\d+)\.(\d+)")


def main(arguments: list[str]) -> int:
    if arguments:
        return _pip(*arguments)
    wanted = _range()
    if _installed_fits(wanted):
        return 0
    if sys.platform == "linux" and not _has_nvidia_gpu():
        return _install_cpu_build(wanted)
    return _pip(wanted)


def _range() -> str:
    """The requirement of pyproject.toml, so that it is written once."""
    dependencies: list[str] = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    return next(line for line in dependencies if line.startswith("torch>"))


def _installed_fits(wanted: str) -> bool:
    try:
        installed = _release(version("torch"))
    except PackageNotFoundError:
        return False
    lowest, beyond = (_release(bound) for bound in wanted.split(","))
    return lowest <= installed < beyond


def _release(text: str) -> tuple[int, ...]:
    match = RELEASE.search(text + ".0")
    return tuple(map(int, match.groups())) if match else (0,)


def _has_nvidia_gpu() -> bool:
    smi = shutil.which("nvidia-smi")
    return smi is not None and subprocess.run([smi, "-L"], capture_output=True, check=False).stdout.startswith(b"GPU")


def _install_cpu_build(wanted: str) -> int:
    pinned = f"torch=={CPU_VERSION}+cpu"
    if _pip(pinned, quiet=True) == 0 or _pip(pinned, "--index-url", CPU_INDEX, "--retries", "1", quiet=True) == 0:
        return 0
    print("No CPU build of torch could be reached; installing the default one, which brings CUDA libraries.", file=sys.stderr)
    return _pip(wanted)


def _pip(*arguments: str, quiet: bool = False) -> int:
    command = [sys.executable, "-m", "pip", "install", *arguments]
    return subprocess.run(command, stderr=subprocess.DEVNULL if quiet else None, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
