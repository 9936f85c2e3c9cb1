"""`penstock generate PROMPT`: one answer, printed as it comes."""

from __future__ import annotations

import argparse
import sys

from msgspec.structs import replace

from penstock.app.notebook import Engine
from penstock.cli.settings import read
from penstock.core.types import Sampling


def run(arguments: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    model = read(arguments, [arguments.model] if arguments.model else []).models[0]
    with Engine(model.model, model.engine, progress=sys.stderr.isatty()) as engine:
        for piece in engine.stream(prompt, _sampling(engine.info.default_sampling, arguments), raw=arguments.raw):
            print(piece, end="", flush=True)
        print()
    return 0


def _sampling(default: Sampling, arguments: argparse.Namespace) -> Sampling:
    given = {name: getattr(arguments, name) for name in ("max_tokens", "temperature", "seed")}
    return replace(default, **{name: value for name, value in given.items() if value is not None})
