"""The command line: parse, print, exit codes. Nothing else lives here.

Exit codes: 0 done, 1 it failed while running, 2 the user's mistake, 130 interrupted. Each command is a module of this package
with `run(arguments)`, imported when it is asked for, so that `penstock --help` loads neither torch nor a web server.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from penstock.core.errors import Bug, InvalidRequest, PenstockError, UserError

FAILED, MISTAKE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except Bug:
        raise  # ours to mend: its traceback is what a report needs
    except PenstockError as error:
        _print_error(error)
        return MISTAKE if isinstance(error, UserError | InvalidRequest) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader left, as in `penstock generate … | head`
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:  # a full disk behind stdout, say
        _drop_output()
        print(f"penstock: {error}", file=sys.stderr)
        return FAILED


def _dispatch(argv: list[str]) -> int:
    from penstock.cli.parser import parse

    arguments = parse(argv)
    command = importlib.import_module(f"penstock.cli.{arguments.command}")
    return int(command.run(arguments))


def _drop_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter's last flush does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(error: PenstockError) -> None:
    print(f"penstock: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
