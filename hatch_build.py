"""Hatchling's hook: compiles the native kernels and puts them into the wheel, which is then one for this platform.

Where they cannot be compiled, the package is built without them, and the engine says so when it loads a model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "scripts"))

from build_native import CannotBuild, build  # noqa: E402


class NativeKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before a wheel is put together, an editable one too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            libraries = build()
        except CannotBuild as error:
            self.app.display_warning(f"penstock is built without native kernels: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"] += [str(path.relative_to(ROOT)) for path in libraries]
