"""`penstock eval …`: how good a model is, in the form in which it is served."""

from __future__ import annotations

import argparse
import json
import sys

from penstock.app.bars import StageBars
from penstock.app.perplexity import measure
from penstock.cli.settings import read
from penstock.core.errors import UserError


def run(arguments: argparse.Namespace) -> int:
    return ACTIONS[arguments.action](arguments)


def perplexity(arguments: argparse.Namespace) -> int:
    """Print the perplexity of a text."""
    if arguments.windows is not None and arguments.windows < 1:
        raise UserError(f"--windows is {arguments.windows}", hint="use 1 or more, or leave it out for the whole text")
    model = read(arguments, [arguments.model] if arguments.model else []).models[0]
    with StageBars(enabled=sys.stderr.isatty()) as bars:
        found = measure(model.model, arguments.text, model.engine, context=arguments.context, windows=arguments.windows, progress=bars)
    plan = found.plan
    if arguments.json:
        numbers = ("perplexity", "error", "tokens", "windows", "context", "seconds")
        record = {name: getattr(found, name) for name in numbers}
        print(json.dumps({"model": model.model, "weights": plan.weights, "kv_format": plan.kv_format, "kernels": plan.kernels, **record}))
        return 0
    print(f"perplexity {found.perplexity:.4f} ± {found.error:.4f}")
    print(f"{found.tokens:,} tokens scored in {found.windows} windows of {found.context}, {found.seconds:.1f} s")
    print(f"{model.model}: weights {plan.weights}, kv {plan.kv_format}, kernels {plan.kernels}")
    return 0


ACTIONS = {"perplexity": perplexity}
