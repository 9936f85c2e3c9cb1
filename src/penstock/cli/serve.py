"""`penstock serve`: load, say what is served and how to try it, serve until a signal."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import shlex
import sys
from collections.abc import Sequence

from penstock import __version__
from penstock.app.bars import LoadingBars
from penstock.app.stack import Served, Stack, build
from penstock.cli.settings import read
from penstock.core.settings import Settings
from penstock.engine.messages import MemoryPlan
from penstock.gateway import app, server
from penstock.trace.logs import JSONFormatter, JSONLines

MOST_NAMES = 8
GC_OBJECTS = 20_000  # made and not freed, between two collections of the young
CHAT = ("chat/completions", {"messages": [{"role": "user", "content": "What is 17 + 25?"}]})
COMPLETION = ("completions", {"prompt": "Once upon a time", "max_tokens": 50})


def run(arguments: argparse.Namespace) -> int:
    settings = read(arguments, arguments.models, with_keys=True)
    lines = _set_up_logs()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, lines))
    return 0


async def _serve(settings: Settings, lines: JSONLines | None) -> None:
    with server.bind(settings.server) as bound:
        with LoadingBars(enabled=sys.stderr.isatty()) as bars:
            stack = await build(settings, bars, lines=lines)
        try:
            print(f"penstock {__version__}\n{describe(stack)}", flush=True)
            _spare_the_collector()
            await server.serve(
                app.build(stack.pipeline, settings.server, stack.metrics, auth=stack.auth, page=stack.page),
                settings.server,
                bound=bound,
                on_ready=lambda url: print(invitation(url, stack), flush=True),
                on_stop=stack.page.stop if stack.page else lambda: None,
            )
        finally:
            await stack.close()


def describe(stack: Stack) -> str:
    """What is served, where the memory goes, and who may ask."""
    lines = [line for name, model in stack.served.items() for line in _model_lines(name, model)]
    for name, upstream in stack.pipeline.dispatch.upstreams.items():
        if name not in stack.served:
            lines.append(f"serves   {_few([card.id for card in upstream.models()])} by {name}")
    return "\n".join([*lines, f"access   {stack.auth.describe()}"])


def invitation(url: str, stack: Stack) -> str:
    """The ready line, and a command that works as it stands."""
    reachable = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    page = f"page     {reachable}/\n" if stack.page else ""
    card = next((card for card in stack.pipeline.models() if not card.embeds), None)
    if card is None:
        return f"{page}\nready on {url}\n"
    path, asked = CHAT if card.id not in stack.served or stack.served[card.id].has_template else COMPLETION
    body = shlex.quote(json.dumps({"model": card.id, **asked}))
    key = '-H "authorization: Bearer $PENSTOCK_KEY" ' if stack.auth.needs_key else ""
    return f"{page}\nready on {url}, try:\n\n  curl {reachable}/v1/{path} {key}-H 'content-type: application/json' -d {body}\n"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _model_lines(name: str, model: Served) -> list[str]:
    info, plan = model.info, model.info.plan
    size = f"{info.num_parameters / 1e6:,.1f} M parameters"
    limits = f"{plan.max_num_seqs} sequences at a time, {plan.max_model_len:,} tokens each, {plan.max_step_tokens:,} tokens per step"
    numbers = f"{plan.weights} weights, {plan.kv_format} KV on {plan.device} ({plan.kernels})"
    return [
        f"model    {name}: {info.architecture}, {size}, {numbers}, loaded in {info.load_s:.1f} s",
        f"memory   {_memory(plan)}",
        f"limits   {limits}",
    ]


def _memory(plan: MemoryPlan) -> str:
    total = plan.weights_bytes + plan.kv_bytes + plan.activation_bytes
    kv = f"KV cache {_size(plan.kv_bytes)} ({plan.num_blocks * plan.block_size:,} tokens)"
    parts = f"weights {_size(plan.weights_bytes)} + {kv} + activations {_size(plan.activation_bytes)}"
    return f"{parts} = {_size(total)} of {_size(plan.available_bytes)} available"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def _set_up_logs() -> JSONLines | None:
    """To stderr: plain lines for a person, JSON for a collector, whose lines of requests take a way of their own."""
    is_read = sys.stderr.isatty()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S") if is_read else JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Nothing of this is in a line; Python's logging HOWTO says how not to look for it.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return None if is_read else JSONLines(sys.stderr.fileno())


def _spare_the_collector() -> None:
    """What was loaded stays; and requests make many objects, few of them in circles: look for those less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 20)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on this platform
        return None
    return uvloop.Loop
