"""`penstock chat`: a conversation. Ctrl-C stops the answer, not the program; Ctrl-D leaves."""

from __future__ import annotations

import argparse
import contextlib
import sys

from penstock.app.notebook import Engine
from penstock.cli.settings import read
from penstock.core.errors import PenstockError, UserError, closest
from penstock.core.types import Message

COMMANDS = {
    "/exit": "leave",
    "/reset": "forget the conversation",
    "/system TEXT": "change the instructions and start anew",
    "/help": "this list",
}


def run(arguments: argparse.Namespace) -> int:
    model = read(arguments, [arguments.model] if arguments.model else []).models[0]
    with Engine(model.model, model.engine, progress=sys.stderr.isatty()) as engine:
        if not engine.has_chat_template:
            raise UserError(f"{model.model!r} has no chat template, so it cannot chat", hint="try penstock generate with this model")
        if sys.stdin.isatty():
            print(f"Chatting with {model.name}. Ctrl-C stops an answer, /exit leaves, /help lists the rest.")
        Conversation(engine, arguments.system).run()
    return 0


class Conversation:
    """What was said so far: complete turns only, and an answer that was stopped as far as it came."""

    def __init__(self, engine: Engine, system: str | None) -> None:
        self._engine = engine
        self._start(system)

    def run(self) -> None:
        """Read lines until /exit or the end of the input."""
        while (line := _read_line()) is not None:
            command, _, rest = line.partition(" ")
            if command == "/exit":
                return
            if command.startswith("/"):
                self._obey(command, rest.strip())
            elif line:
                self._answer(line)

    def _start(self, system: str | None) -> None:
        self._system = system
        self._messages = [Message(role="system", content=system)] if system else []

    def _obey(self, command: str, rest: str) -> None:
        if command == "/reset":
            self._start(self._system)
        elif command == "/system":
            self._start(rest or None)
        elif command == "/help":
            print("\n".join(f"{name:<14} {what}" for name, what in COMMANDS.items()))
        else:
            near = closest(command, [name.split()[0] for name in COMMANDS])
            print(f"unknown command {command}" + (f"; did you mean {near}?" if near else "; /help lists them"), file=sys.stderr)

    def _answer(self, text: str) -> None:
        asked = Message(role="user", content=text)
        pieces: list[str] = []
        try:
            for piece in self._engine.stream([*self._messages, asked]):
                pieces.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            print(" …", end="")
        except PenstockError as error:
            print(f"penstock: {error} (/reset starts anew)", file=sys.stderr)
            return
        print()
        self._messages += [asked, Message(role="assistant", content="".join(pieces))]


def _read_line() -> str | None:
    """The next line, None at the end. On a terminal with a prompt and line editing; Ctrl-C there discards the line."""
    if not sys.stdin.isatty():
        return line.strip() if (line := sys.stdin.readline()) else None
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # its import gives input() history and editing
    while True:
        try:
            return input("> ").strip()
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()
