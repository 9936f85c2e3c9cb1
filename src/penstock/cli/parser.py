"""What can be typed. A flag is here when "auto" could not know it; everything else is in the config file.

Each flag of a setting has `dest` "room.key", which is its path in `core.settings`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from penstock import __version__
from penstock.core.config import DEFAULT_MODEL
from penstock.core.errors import UserError, closest

MODEL_HELP = "a built-in name, a Hugging Face id, a folder, a .gguf file or a llama2.c .bin file"


class Parser(argparse.ArgumentParser):
    """argparse, whose mistakes are `UserError`s."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint=f"see {self.prog} --help")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command and its arguments. Raises UserError, with the closest match for an unknown command or flag."""
    parser, commands = _build()
    if argv and not argv[0].startswith("-") and argv[0] not in commands:
        raise _unknown("command", argv[0], list(commands), parser.prog)
    arguments, left = parser.parse_known_args(argv or ["--help"])
    if left:
        flags = _flags(commands[arguments.command], arguments)
        raise _unknown("flag" if left[0].startswith("-") else "argument", left[0], flags, f"{parser.prog} {arguments.command}")
    return arguments


def config_flags(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings given as flags, by path."""
    return {path: text for path, text in vars(arguments).items() if "." in path and text is not None}


def _unknown(kind: str, given: str, known: Sequence[str], prog: str) -> UserError:
    near = closest(given.partition("=")[0], known)
    return UserError(f"unknown {kind} {given!r}", hint=f"did you mean {near!r}?" if near else f"see {prog} --help")


def _flags(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """What the command takes, and the action of it that was chosen."""
    flags = list(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            flags += action.choices[getattr(arguments, action.dest)]._option_string_actions
    return flags


def _build() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(prog="penstock", description="Serve and run language models.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands: dict[str, Parser] = {}
    for name, summary, fill in COMMANDS:
        commands[name] = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
        fill(commands[name])
    return parser, commands


def _serve(parser: Parser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})")
    parser.add_argument("--host", dest="server.host", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", dest="server.port", metavar="PORT", help="port to listen on, 0 for a free one (default: 8000)")
    _engine_flags(parser)


def _chat(parser: Parser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})")
    parser.add_argument("--system", metavar="TEXT", help="instructions that the model sees first")
    _engine_flags(parser)


def _generate(parser: Parser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what to answer; - reads it from standard input")
    parser.add_argument("--model", metavar="MODEL", help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})")
    parser.add_argument("--raw", action="store_true", help="continue the prompt as it is, without the model's chat template")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="stop after N tokens (default: when the model stops)")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 always takes the likeliest token (default: the model's own)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    _engine_flags(parser)


def _config(parser: Parser) -> None:
    _serve(parser)


def _usage(parser: Parser) -> None:
    parser.add_argument("--by", choices=("key", "model", "route", "day"), help="what to add up by (default: model)")
    parser.add_argument("--since", metavar="WHEN", help="2026-11-21, 2026-11-21T13:30 (UTC), or 7d, 24h, 30min ago (default: ever)")
    parser.add_argument("--until", metavar="WHEN", help="before then (default: now)")
    parser.add_argument("--key", metavar="KEY", help="only of the key with this id or name")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--rows", action="store_true", help="every attempt instead of sums")
    parser.add_argument("--judgements", action="store_true", help="what guards, cache and router decided; --rows for each of them")
    kind.add_argument("--bill", action="store_true", help="what your own engines cost: by requests, and idle")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="as CSV")
    form.add_argument("--json", action="store_true", help="as one JSON object per line")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the server's settings in TOML; the defaults need none")


def _prices(parser: Parser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="only models of this name; * stands for anything")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the server's settings in TOML; the defaults need none")


def _keys(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create, show, revoke, rotate = (
        actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
        for name, summary in (
            ("create", "make a key and print it, this once"),
            ("list", "list the keys"),
            ("revoke", "end a key for good"),
            ("rotate", "give a key a new token"),
        )
    )
    _new_key(create)
    show.add_argument("--json", action="store_true", help="as JSON, with every field")
    for ended in (revoke, rotate):
        ended.add_argument("id", metavar="ID", help="the key's id, which is the middle of its token")
    rotate.add_argument("--grace", default="0s", metavar="TIME", help="how long the former token goes on, such as 1h (default: 0s)")
    for action in (create, show, revoke, rotate):
        _config_flag(action)


def _cache(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in (("stats", "show how much is stored"), ("clear", "forget answers: all, or a tenant's, or a model's")):
        action = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
        _config_flag(action)
        if name == "clear":
            action.add_argument("--tenant", metavar="NAME", help="only of this tenant; a key's own is its id")
            action.add_argument("--model", metavar="NAME", help="only of the model that was asked for by this name")


def _new_key(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="whose key it is, for people to read")
    parser.add_argument("--admin", action="store_true", help="reaches /metrics and the page, too")
    parser.add_argument("--model", action="append", metavar="NAME", help="a model it may ask for; repeatable (default: all)")
    parser.add_argument("--route", action="append", metavar="PATH", help="a path it may call, with all below; repeatable (default: all)")
    parser.add_argument("--expires", metavar="TIME", help="ends after so long, such as 30d (default: never)")
    parser.add_argument("--tenant", default="", metavar="NAME", help="keys of one tenant share caches (default: a tenant of its own)")
    parser.add_argument("--priority", type=int, default=0, metavar="N", help="lower runs earlier (default: 0)")
    parser.add_argument("--requests-per-minute", type=int, metavar="N", help="most requests in any 60 seconds")
    parser.add_argument("--tokens-per-minute", type=int, metavar="N", help="most tokens in any 60 seconds, prompts and answers")
    parser.add_argument("--concurrent", type=int, metavar="N", help="most requests at a time")
    parser.add_argument("--budget-day", metavar="USD", help="most dollars in a UTC day")
    parser.add_argument("--budget-month", metavar="USD", help="most dollars in a UTC month")
    parser.add_argument("--warn", action="store_true", help="a spent budget only warns")


def _router(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in (("train", "learn which model a prompt needs"), ("evaluate", "show what a classifier saves at which quality")):
        action = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
        action.add_argument("file", type=Path, metavar="FILE", help="rows of prompt, model, score, perhaps cost and group: JSONL or CSV")
        encoders = ("auto", "minilm", "static", "none")
        action.add_argument("--encoder", choices=encoders, default="auto", help="whose vectors are read, too (default: auto)")
        if name == "train":
            out = Path("router.safetensors")
            action.add_argument("--out", type=Path, default=out, metavar="FILE", help=f"(default: {out})")
        else:
            action.add_argument("--classifier", type=Path, metavar="FILE", help="a trained file (default: one per part, from the rest)")
            action.add_argument("--weak", metavar="MODEL", help="of the table (default: the cheapest)")
            action.add_argument("--strong", metavar="MODEL", help="of the table (default: the dearest)")
    summary = "learn how far a cascade may trust a model"
    calibrate = actions.add_parser("calibrate", help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
    calibrate.add_argument("file", type=Path, metavar="FILE", help='JSON lines: {"prompt": "…", "answer": "…"}, or a list of answers')
    calibrate.add_argument("--small", required=True, metavar="MODEL", help=f"is asked first: with --config a name there, else {MODEL_HELP}")
    calibrate.add_argument("--large", required=True, metavar="MODEL", help="is asked where the first is not trusted")
    calibrate.add_argument("--out", type=Path, default=Path("calibration.json"), metavar="FILE", help="(default: calibration.json)")
    _config_flag(calibrate)


def _guard(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "set a rule's threshold on your own innocent traffic"
    calibrate = actions.add_parser("calibrate", help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
    calibrate.add_argument("file", type=Path, metavar="FILE", help='JSON lines: {"prompt": "…"} or {"messages": […]}')
    calibrate.add_argument("--rule", default="injection", metavar="KIND", help="injection or toxicity (default: injection)")
    calibrate.add_argument("--false-alarms", type=float, default=0.01, metavar="SHARE", help="most of it that is stopped (default: 0.01)")
    calibrate.add_argument("--out", type=Path, default=Path("guard.json"), metavar="FILE", help="(default: guard.json)")


def _quantize(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder of float weights, a built-in name or a Hugging Face id")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make, in GPTQ's layout")
    parser.add_argument("--format", default="int4", metavar="FORMAT", help="int8, int4, int4-g128, int4-g128-asym, … (default: int4)")
    methods = ("rtn", "gptq", "awq", "smoothquant")
    parser.add_argument("--method", choices=methods, default="rtn", help="rtn needs no text; the others are better (default: rtn)")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="text like what the model will see, or conversations as .jsonl")
    parser.add_argument("--windows", type=int, default=64, metavar="N", help="pieces of it to read (default: 64)")
    parser.add_argument("--context", type=int, default=512, metavar="N", help="tokens of each (default: 512)")


def _eval(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "measure how well a model predicts a text"
    perplexity = actions.add_parser("perplexity", help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
    perplexity.add_argument("model", nargs="?", metavar="MODEL", help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})")
    perplexity.add_argument("--text", type=Path, required=True, metavar="FILE", help="a text, or conversations as .jsonl")
    perplexity.add_argument("--context", type=int, default=512, metavar="N", help="tokens of a window; half of it counts (default: 512)")
    perplexity.add_argument("--windows", type=int, metavar="N", help="only the first N windows (default: all)")
    perplexity.add_argument("--json", action="store_true", help="as one JSON object")
    _engine_flags(perplexity)


def _nothing(parser: Parser) -> None:
    """A command without arguments."""


def _config_flag(parser: Parser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML; the defaults need none")


def _engine_flags(parser: Parser) -> None:
    _config_flag(parser)
    parser.add_argument("--device", dest="engine.device", metavar="DEVICE", help="auto, cpu or cuda")
    parser.add_argument("--dtype", dest="engine.dtype", metavar="DTYPE", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--weights", dest="engine.weights", metavar="FORMAT", help="auto, float, int8, int4, …: see docs/quantization.md")
    parser.add_argument("--kv-format", dest="engine.kv_format", metavar="FORMAT", help="auto, fp32, bf16, int8 or int4")
    parser.add_argument("--max-model-len", dest="engine.max_model_len", metavar="TOKENS", help="longest prompt and answer together")
    parser.add_argument("--kv-bytes", dest="engine.kv_bytes", metavar="SIZE", help="memory for the KV cache, such as 2GiB")


COMMANDS: Sequence[tuple[str, str, Callable[[Parser], None]]] = (
    ("serve", "serve models over HTTP with OpenAI's interface", _serve),
    ("chat", "talk to a model", _chat),
    ("generate", "answer one prompt and print it as it comes", _generate),
    ("keys", "make, list, revoke and rotate API keys", _keys),
    ("models", "list the models that need no download", _nothing),
    ("router", "learn from your own data which model to ask", _router),
    ("guard", "set the thresholds of guardrails", _guard),
    ("cache", "look at stored answers and forget them", _cache),
    ("quantize", "make a smaller copy of a model, in fewer bits", _quantize),
    ("eval", "measure how good a model is in the form it is served in", _eval),
    ("usage", "show what was used and what it cost", _usage),
    ("prices", "list the known prices of models", _prices),
    ("config", "show each setting and where it comes from", _config),
    ("version", "show the versions of penstock and what it runs on", _nothing),
)
