"""A server in a process of its own, requests put to it at their times, what came of each, and what its ledger says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx

READY_WITHIN_S = 180.0
STOP_WITHIN_S = 60.0
UNFINISHED = "unfinished"
ID = re.compile(r"replay-\d+")  # as the requests are called, within the ids that the gateway makes of it
Judged = tuple[str, str, str, bool]  # room, rule, action, shadow


@dataclass
class Answer:
    """What came of one request. `code`: of the error; UNFINISHED where time was up. `cost`: dollars, None: not told."""

    id: str
    code: str = ""
    text: str = ""
    reason: str = ""
    ttft_s: float | None = None
    e2e_s: float | None = None
    cost: Decimal | None = None
    cache: str = "off"
    model: str = ""
    judged: list[Judged] | None = None  # None: the answer does not tell, as where it is an error

    @property
    def refused(self) -> bool:
        return self.code == "content_filter" or self.reason == "content_filter"

    @property
    def answered(self) -> bool:
        return not self.code and not self.refused


@dataclass
class Run:
    """All of one setting. `failure`: the server did not start, or died, with the end of its log."""

    answers: list[Answer] = field(default_factory=list)
    wall_s: float = 0.0
    failure: str = ""
    ledger: list[dict[str, object]] = field(default_factory=list)  # rows of attempts
    judgements: list[dict[str, object]] = field(default_factory=list)


class Died(Exception):
    """The server is not there (any more)."""


@dataclass(frozen=True)
class Server:
    """A `penstock serve` that is ready."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def check(self) -> None:
        """Raises Died."""
        if self.process.poll() is not None:
            raise Died(f"the server ended with exit code {self.process.returncode}: {self.log.read_text(errors='replace')[-1500:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(config: Path, port: int) -> Iterator[Server]:
    """Serve as `config` says until the end of the block. Raises Died where it does not come up."""
    log = config.with_suffix(".log")
    command = [sys.executable, "-m", "penstock", "serve", "--config", str(config)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment(), start_new_session=True)
    server = Server(process, port, log)
    try:
        until_ready(server)
        yield server
    finally:
        stop(process)


def environment() -> dict[str, str]:
    """Ours without settings of Penstock: they would go before those of the config."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}


def until_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        server.check()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{server.port}/ready", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise Died(f"the server was not ready within {READY_WITHIN_S:g} s: {server.log.read_text(errors='replace')[-1500:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Politely, and then with all its engines."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def replay(server: Server, bodies: Sequence[tuple[float, dict[str, object]]], limit_s: float, name: str = "replay") -> Run:
    """Send each body at its time (seconds from now) and read all answers; what is not there after `limit_s` is unfinished."""
    run = Run(answers=[Answer(f"{name}-{number}", code=UNFINISHED) for number in range(len(bodies))])
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    started = time.perf_counter()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=None, limits=limits) as client:

        async def one(at_s: float, number: int, body: dict[str, object]) -> None:
            await asyncio.sleep(max(0.0, at_s - (time.perf_counter() - started)))
            answer = Answer(run.answers[number].id)
            try:
                await ask(client, body, answer)
            except httpx.HTTPError as error:
                answer.code = type(error).__name__
            run.answers[number] = answer

        tasks = [asyncio.create_task(one(at_s, number, body)) for number, (at_s, body) in enumerate(bodies)]
        watching = asyncio.create_task(watch(server))
        await asyncio.wait([asyncio.gather(*tasks, return_exceptions=True), watching], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        run.wall_s = time.perf_counter() - started
        if watching.done() and (error := watching.exception()):
            run.failure = str(error)
        for task in (*tasks, watching):
            task.cancel()
        await asyncio.gather(*tasks, watching, return_exceptions=True)
    return run


async def watch(server: Server) -> None:
    while True:
        server.check()
        await asyncio.sleep(0.5)


async def ask(client: httpx.AsyncClient, body: dict[str, object], answer: Answer) -> None:
    """Stream one answer into `answer`."""
    sent = time.perf_counter()
    pieces: list[str] = []
    async with client.stream("POST", "/v1/chat/completions", json=body, headers={"x-request-id": answer.id}) as reply:
        if reply.status_code != 200:
            told(answer, reply.headers.get("x-penstock-cost"))
            answer.code = code_of(await reply.aread(), reply.status_code)
            return
        async for line in reply.aiter_lines():
            if line.startswith(": x-penstock-cost "):
                told(answer, line.removeprefix(": x-penstock-cost "))
            elif line.startswith("data: {"):
                piece = read(json.loads(line[6:]), answer)
                if piece and answer.ttft_s is None:
                    answer.ttft_s = time.perf_counter() - sent
                pieces.append(piece)
    answer.text = "".join(pieces)
    answer.e2e_s = time.perf_counter() - sent


def read(chunk: dict[str, object], answer: Answer) -> str:
    """The chunk's text; what else it says goes into `answer`."""
    if error := chunk.get("error"):
        answer.code = str(error.get("code")) if isinstance(error, dict) else "error"
    if isinstance(explained := chunk.get("penstock"), dict):
        answer.cache, answer.model = explained["cache"], explained["model"]
        answer.judged = [(j["room"], j["rule"], j["action"], j.get("shadow", False)) for j in explained["judgements"]]
    text = ""
    for choice in chunk.get("choices") or ():  # type: ignore[attr-defined]
        text += choice["delta"].get("content") or ""
        answer.reason = choice.get("finish_reason") or answer.reason
    return text


def told(answer: Answer, cost: str | None) -> None:
    if cost and cost not in ("unknown", "pending"):
        answer.cost = Decimal(cost)


def code_of(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"


def read_ledger(config: Path, run: Run) -> None:
    """What `penstock usage` says of the requests, once the server has ended. Raises Died where it cannot say it."""
    run.ledger, run.judgements = (
        [row for row in usage(config, "--rows", *more) if ID.search(id_of(row))] for more in ((), ("--judgements",))
    )


def id_of(row: dict[str, object]) -> str:
    """The name that a request was given, where it is one of ours."""
    id = str(row["request_id"])
    found = ID.search(id)
    return found[0] if found else id


def usage(config: Path, *flags: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "penstock", "usage", "--config", str(config), "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        raise Died(f"penstock usage {' '.join(flags)} ended with {done.returncode}: {done.stderr[-500:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(run: Run) -> list[str]:
    """Where the answers and the ledger do not agree, request for request; nothing where they do."""
    costs: dict[str, Decimal] = {}
    cached: set[str] = set()
    for row in run.ledger:
        id = id_of(row)
        costs[id] = costs.get(id, Decimal(0)) + Decimal(str(row["cost_usd"] or 0))
        if row["purpose"] == "cache":
            cached.add(id)
    judged: dict[str, Counter[Judged]] = {}
    for row in run.judgements:
        what = (str(row["room"]), str(row["rule"]), str(row["action"]), bool(row["shadow"]))
        judged.setdefault(id_of(row), Counter())[what] += 1
    found = []
    for answer in run.answers:
        if answer.cost is not None and answer.cost != costs.get(answer.id, Decimal(0)):
            found.append(f"{answer.id} was told a cost of {answer.cost}, the ledger has {costs.get(answer.id)}")
        if answer.answered and (answer.cache == "hit") != (answer.id in cached):
            found.append(f"{answer.id} was told cache: {answer.cache}, the ledger has {'a hit' if answer.id in cached else 'none'}")
        if answer.judged is not None and Counter(answer.judged) != judged.get(answer.id, Counter()):
            found.append(f"{answer.id} was told {answer.judged}, the ledger has {judged.get(answer.id)}")
    return found
