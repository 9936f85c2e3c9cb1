"""`penstock version`: what a bug report needs."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from penstock import __version__
from penstock.engine.kernels.cpu.library import libraries


def run(arguments: argparse.Namespace) -> int:
    print(f"penstock {__version__}")
    print(f"python   {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"torch    {_installed('torch')}")
    print(f"kernels  {next(iter(libraries()), 'none: no C++ compiler was found when penstock was installed')}")
    return 0


def _installed(package: str) -> str:
    """The version without importing the package: torch takes seconds."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
