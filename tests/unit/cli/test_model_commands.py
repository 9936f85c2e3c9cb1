"""The commands that load a model, with the built-in one, as a user starts them."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

PENSTOCK = [sys.executable, "-m", "penstock"]
# Makes the terminal its own, so that Ctrl-C reaches it, and becomes the program.
TAKE_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
SMALL = ["--max-model-len", "512", "--kv-bytes", "16MiB"]


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PENSTOCK, *arguments], input=stdin, capture_output=True, text=True, timeout=100, check=False)


class Terminal:
    """A program that believes to have a person before it."""

    def __init__(self, *arguments: str) -> None:
        self._main, side = pty.openpty()
        command = [sys.executable, "-c", TAKE_TERMINAL, *PENSTOCK, *arguments]
        self.process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True)
        os.close(side)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def press_ctrl_c(self) -> None:
        time.sleep(0.2)  # a person is no faster; a key between prompt and line editing would be lost
        self.type("\x03")

    def wait_for(self, pattern: str, timeout_s: float = 60) -> None:
        """Read on until `pattern` is in what came since the last call."""
        deadline, fresh = time.monotonic() + timeout_s, ""
        while not re.search(pattern, fresh):
            if not select.select([self._main], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{pattern!r} did not come; seen: {fresh[-500:]!r}")
            fresh += os.read(self._main, 4096).decode(errors="replace")
        self.seen += fresh

    def exit(self, tries: int = 10) -> None:
        """Type /exit until it is taken: where the answer was short, the last Ctrl-C may still be under way and discard the line."""
        for _ in range(tries):
            self.type("/exit\n")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
                return
        pytest.fail("the program does not obey /exit")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


def test_generate_prints_the_answer_and_nothing_else() -> None:
    done = run("generate", "What is 17 + 25?", "--temperature", "0", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_generate_reads_standard_input() -> None:
    arguments = ("--temperature", "0", "--max-tokens", "8", *SMALL)
    assert run("generate", "-", *arguments, stdin="Hello!").stdout == run("generate", "Hello!", *arguments).stdout


def test_what_does_not_fit_is_the_user_s_mistake_and_no_traceback() -> None:
    failed = run("generate", "-", *SMALL, stdin="word " * 3000)
    assert failed.returncode == 2
    assert failed.stderr.startswith("penstock: ")
    assert "512" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_too_little_memory_is_a_mistake_that_names_what_fits() -> None:
    failed = run("generate", "Hello!", "--kv-bytes", "1KiB")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr


def test_chat_answers_each_line_and_keeps_the_conversation() -> None:
    done = run("chat", "--system", "Be brief.", *SMALL, stdin="Hello!\n/reste\n/reset\n\nWhat is 17 + 25?\n/exit\nunread\n")
    assert done.returncode == 0
    assert len([line for line in done.stdout.splitlines() if line.strip()]) >= 2
    assert "did you mean /reset?" in done.stderr


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Callable[..., Terminal]) -> None:
    chat = terminal("chat", *SMALL)
    chat.wait_for("> ")
    chat.type("Tell me a long story.\n")
    chat.wait_for(r"story.\s+\S+")
    chat.press_ctrl_c()
    chat.wait_for("> ")
    chat.type("half a line")
    chat.press_ctrl_c()
    chat.wait_for("> ")
    assert chat.process.poll() is None
    chat.exit()
    assert chat.process.returncode == 0


def test_ctrl_c_while_generating_ends_with_130(terminal: Callable[..., Terminal]) -> None:
    generate = terminal("generate", "--raw", "Once", "--max-tokens", "480", *SMALL)
    generate.wait_for(r"\w")
    generate.press_ctrl_c()
    assert generate.process.wait(30) in (0, 130, -signal.SIGINT)  # else it had just finished, or was about to leave


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`penstock serve` on a free port, and all that it printed until it was ready."""
    process = subprocess.Popen([*PENSTOCK, "serve", "--port", "0", *SMALL], stdout=subprocess.PIPE, text=True)
    printed = ""
    assert process.stdout is not None
    while "curl" not in printed and (line := process.stdout.readline()):
        printed += line
    yield process, printed
    process.kill()
    process.wait()
    process.stdout.close()


def test_serve_says_what_it_serves_and_where_the_memory_goes(served: tuple[subprocess.Popen[str], str]) -> None:
    printed = served[1]
    assert re.search(r"^model +penstock-mini: \w+, [\d.]+ M parameters, float weights, fp32 KV on cpu", printed, re.MULTILINE)
    assert re.search(r"^memory +weights .* \+ KV cache 1[56]\.\d MiB .* available$", printed, re.MULTILINE)
    assert re.search(r"^limits .* 512 tokens each", printed, re.MULTILINE)
    assert re.search(r"^ready on http://127\.0\.0\.1:\d+, try:$", printed, re.MULTILINE)


def test_the_curl_that_serve_prints_works_as_it_stands(served: tuple[subprocess.Popen[str], str]) -> None:
    line = next(line for line in served[1].splitlines() if "curl" in line)
    _, url, *flags = shlex.split(line)
    headers = dict(flag.split(": ") for flag in flags[1::2][:1])
    answer = httpx.post(url, content=flags[flags.index("-d") + 1], headers=headers, timeout=60).raise_for_status().json()
    assert answer["choices"][0]["message"]["content"]


def test_a_second_server_on_the_port_is_told_so_before_it_loads(served: tuple[subprocess.Popen[str], str]) -> None:
    port = re.search(r"ready on http://127\.0\.0\.1:(\d+)", served[1])
    assert port is not None
    failed = run("serve", "--port", port[1])
    assert failed.returncode == 2
    assert f"port {port[1]} on 127.0.0.1 is in use" in failed.stderr


def test_sigterm_ends_the_server_and_its_engine(served: tuple[subprocess.Popen[str], str]) -> None:
    process = served[0]
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert children
    assert not any(child.is_running() for child in children)
