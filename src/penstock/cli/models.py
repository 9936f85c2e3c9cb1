"""`penstock models`: what can be served without a download."""

from __future__ import annotations

import argparse

from penstock.files.locate import BUILTIN


def run(arguments: argparse.Namespace) -> int:
    width = max(map(len, BUILTIN), default=0)
    for name, folder in BUILTIN.items():
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        print(f"{name:<{width}}  built in, {size / 2**20:.1f} MiB")
    return 0
