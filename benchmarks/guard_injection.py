"""The injection rule beside plainer detectors: prompts, and documents with a sentence put into them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from figures import Row, Share, Table

from penstock.core.config import RuleSettings
from penstock.embed import open_vectors
from penstock.guard.decode import readings
from penstock.guard.enforced import Enforced
from penstock.guard.features import Grams, grams
from penstock.guard.head import load_head, logistic
from penstock.guard.hidden import judged
from penstock.guard.injection import injection, read_document
from penstock.guard.rule import Means, Text, Where
from training.guards import data, rows
from training.guards.data import Document, Prompt
from training.guards.fit import Penalty, fit

Detector = Callable[[Sequence[str]], list[bool]]

# What people write first: the phrases of the best-known attacks.
PHRASES = re.compile(
    r"ignore (?:all |any |the )?(?:previous|prior|above) (?:instructions|prompts|rules)|disregard (?:all |the )?(?:previous|above)"
    r"|do anything now|jailbreak|developer mode|you are now|pretend (?:to be|you are)|without (?:any )?restrictions"
    r"|reveal (?:your|the) (?:system )?prompt|\bDAN\b",
    re.IGNORECASE,
)
FALSE_ALARMS = 0.01
PER_SOURCE = 300  # documents
CASES = 3  # documents that each attack of BIPIA is put into, of each kind


class Injections:
    """The rows of one run, and the detectors."""

    def __init__(self, folder: Path, chat: Path | None, known: list[Prompt], *, everything: bool, minilm: bool) -> None:
        self._folder = folder
        self._chat = chat
        self._everything = everything
        self._known = known
        self._random = Random(11)
        settings = RuleSettings(kind="injection", budget_s=60)
        self._rule = Enforced(injection(settings, Means(vectors=lambda: open_vectors("static"))), settings)
        self._plain: dict[str, Detector] = {"regex": lambda texts: [bool(PHRASES.search(text)) for text in texts]}
        self._plain["char n-grams"] = self._trained(_character_grams)
        if minilm:
            vectors = open_vectors("minilm")
            self._plain["MiniLM"] = self._trained(lambda texts: ([_NOTHING] * len(texts), vectors.now(texts)))

    async def prompts(self) -> Table:
        """Each source of prompts: what is stopped. Innocent prompts also behind system prompts that forbid something else."""
        found = [row for row in self._known if self._everything or row.part == "test"]
        found += [replace(row, source=f"{row.source}, guarded") for row in self._behind(found)]
        found += [row for row in data.instructions(self._folder) if row.part == "test" and row.source == "bipia-text"]
        sources: dict[str, list[Prompt]] = defaultdict(list)
        for row in found:
            sources[_name(row)].append(row)
        table = Table("Prompts stopped by the rule `injection` (attacks: higher is better; innocent: false alarms)")
        sources["plain chat: mt-bench and oasst"] = [*sources["mt-bench"], *sources["oasst"]]
        for name in sorted((name for name in sources if sources[name]), key=lambda name: (not sources[name][0].label, name)):
            cells: dict[str, Share | float | int | str] = {"injection": await self._share(sources[name])}
            for detector, find in self._plain.items():
                cells[detector] = _shared(find([row.text for row in sources[name]]))
            table.rows.append(Row(name, cells))
        return table

    def _behind(self, found: Iterable[Prompt]) -> list[Prompt]:
        """The chat that is asked for in the report, each behind the system prompt of an attack of the same part."""
        wanted = [row for row in found if row.label or row.source in ("notinject", "oasst", "mt-bench", "wildguard")]
        systems = sorted({row.system for row in wanted if row.label and row.system})
        return [replace(row, system=self._random.choice(systems)) for row in wanted if not row.label] if systems else []

    async def documents(self) -> Table:
        """What tools return: clean documents, documents with an attack in them, and single prompts as if a tool had returned them."""
        clean = [row for row in data.documents(self._folder, self._chat) if self._everything or row.part == "test"]
        table = Table("What tools return, stopped by the rule `injection`")
        attacks = [row for row in data.instructions(self._folder) if self._everything or row.part == "test"]
        for source in ("bipia-email", "bipia-table", "halueval-knowledge"):
            pool = [row for row in clean if row.source == source]
            for kind in ("bipia-text", "bipia-code"):
                chosen = [row for row in attacks if row.source == kind for _ in range(CASES if kind == "bipia-text" else 1)]
                found = [data.insert(self._random.choice(pool), row, self._random) for row in chosen] if pool else []
                table.rows.append(self._documents_row(f"{kind} in {source}", found))
                for task in (False, True) if kind == "bipia-text" else ():
                    part = [row for row in found if (row.kind in TASKS) == task]
                    what = "a request of its own" if task else "a change of the reply"
                    table.rows.append(self._documents_row(f"{kind} in {source}: {what}", part))
        lone = [Document(row.text, row.source, row.part, row.text) for row in attacks if row.source == "bipia-text"]
        table.rows.append(self._documents_row("bipia-text, nothing around it", lone))
        for source in dict.fromkeys(row.source for row in clean):
            table.rows.append(
                self._documents_row(f"clean: {source}", rows.capped([row for row in clean if row.source == source], PER_SOURCE))
            )
        for source in ("notinject", "oasst", "mt-bench"):
            prompts = [row for row in self._known if row.source == source and (self._everything or row.part == "test")]
            alone = [Document(row.text, source, row.part) for row in prompts]
            table.rows.append(self._documents_row(f"clean: a prompt of {source} alone", alone))
        return table

    def _documents_row(self, name: str, found: Sequence[Document]) -> Row:
        """Of an attacked document only the attack's own statements count: an alarm elsewhere is luck."""
        tools = load_head("tools")
        stopped = []
        for row in found:
            over = [one for one in read_document(row.text, tools) if logistic(one.logit) > tools.threshold]
            stopped.append(any(not row.attack or row.text[one.start : one.end] in row.attack for one in over))
        texts = [row.text for row in found]
        return Row(name, {"injection": _shared(stopped)} | {detector: _shared(find(texts)) for detector, find in self._plain.items()})

    async def _share(self, found: Sequence[Prompt]) -> Share:
        verdicts = [await judged(self._rule, _text(row.text, "input", row.system), readings(row.text)) for row in found]
        return Share(sum(bool(verdict.opinion.why) for verdict in verdicts), len(verdicts))

    def _trained(self, read: Callable[[Sequence[str]], tuple[Sequence[Grams], np.ndarray]]) -> Detector:
        """Logistic regression on the same rows, its threshold set as ours is."""
        train = [row for row in self._known if row.part == "train"]
        train += [row for row in data.instructions(self._folder) if row.part == "train"]
        labels = np.array([row.label for row in train], dtype=np.float32)
        weights = np.where(labels > 0, (1 - labels).sum() / max(labels.sum(), 1), 1).astype(np.float32)
        fitted = fit(*read([row.text for row in train]), labels, weights, Penalty(grams=2e-4, dense=1e-3))
        held = [row for row in self._known if row.part == "calibrate" and not row.label]
        scores = fitted.logits(*read([row.text for row in held]))
        traps = np.array([row.source == "notinject" for row in held])
        limit = max(_quantile(scores[traps]), _quantile(scores[~traps])) if len(scores) else 0.0
        return lambda texts: [bool(score > limit) for score in fitted.logits(*read(texts))] if texts else []


# BIPIA's kinds of attack that ask for something of their own rather than change the reply.
TASKS = ("Task Automation", "Business Intelligence", "Conversational Agent", "Research Assistance", "Sentiment Analysis")
_NOTHING = Grams(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.float32))


def _character_grams(texts: Sequence[str]) -> tuple[Sequence[Grams], np.ndarray]:
    found = []
    for text in texts:
        both = grams(text)
        characters = both.buckets < 1 << 16
        found.append(Grams(both.buckets[characters], both.weights[characters]))
    return found, np.zeros((len(texts), 1), dtype=np.float32)


def _quantile(scores: np.ndarray) -> float:
    ordered = np.sort(scores)
    return float(ordered[min(int(np.ceil((1 - FALSE_ALARMS) * (len(ordered) + 1))), len(ordered)) - 1])


def _text(text: str, where: Where, system: str) -> Text:
    return Text(text=text, where=where, role="user", system=system)


def _name(row: Prompt) -> str:
    if row.source.startswith("cyberseceval"):
        return "cyberseceval"
    return f"{row.source}, as a prompt" if row.source == "bipia-text" else row.source


def _shared(found: Sequence[bool]) -> Share:
    return Share(sum(found), len(found))
