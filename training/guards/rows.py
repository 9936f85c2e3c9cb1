"""From the data to rows of features, each with its label and how much it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock.guard.features import Grams, grams
from penstock.guard.head import Head
from penstock.guard.injection import input_features, tool_features, worst_pasted
from penstock.guard.statements import statements
from penstock.guard.toxicity import toxicity_features
from training.guards import data, templates
from training.guards.data import Document, Prompt

Floats = NDArray[np.float32]
Row = TypeVar("Row", Prompt, Document)

# How much a row of a source counts. Traps count more since they are few; what was generated counts less, since it is not real.
WEIGHTS = {
    "garak": 3.0, "pint": 3.0, "cyberseceval-direct": 3.0, "cyberseceval-indirect": 4.0, "notinject": 4.0, "wildguard": 3.0,
    "attack": 0.5, "innocent": 0.5, "guarded": 0.4, "unguarded": 0.4, "task": 0.3, "pasted": 0.6, "whole": 0.6, "gsm8k": 0.3, "clinc150": 0.3,
}  # fmt: skip
GUARDED = 5  # for each twelve of other sorts: prompts behind a system prompt, and as many with pasted text
ABUSE = ("target_obj_nh", "target_indiv_nh", "target_group_nh", "profanity_nh")
CHAT = ("oasst", "halueval", "self-instruct", "ifeval", "clinc150", "gsm8k", "spec-bench")
ATTACKED = 4.0  # a statement that somebody put into a document
KEPT = 6  # statements of a document that train, besides the attack


@dataclass(frozen=True, slots=True)
class Rows:
    """What a head is fitted to."""

    grams: Sequence[Grams]
    dense: Floats
    labels: Floats
    weights: Floats


def prompts(rows: Sequence[Prompt], number: int, seed: int = 0) -> list[Prompt]:
    """The training prompts: those of the data, `number` generated ones of each sort, and innocent ones behind system prompts that forbid something else."""
    random = Random(seed)
    found = [row for row in rows if row.part == "train"]
    made: list[Prompt] = []
    for at in range(number):
        make = (templates.jailbreak, templates.override, templates.extraction)[at % 3]
        made.append(Prompt(make(random), True, "attack", "train"))
        made.append(Prompt(templates.innocent(random), False, "innocent", "train"))
        made.append(Prompt(templates.task(random), False, "task", "train")) if at % 4 == 0 else None
    for _ in range(number // 12 * GUARDED):
        system, asking, other = templates.guarded(random)
        made += [Prompt(asking, True, "guarded", "train", system), Prompt(other, False, "unguarded", "train", system)]
        planted, whole = templates.pasted(random)
        made += [Prompt(planted, True, "pasted", "train"), Prompt(whole, False, "whole", "train")]
    return found + made + paired(found, "train", random)


def paired(rows: Iterable[Prompt], part: data.Part, random: Random) -> list[Prompt]:
    """The innocent prompts of a part once more, each behind the system prompt of some attack of that part."""
    rows = [row for row in rows if row.part == part]
    systems = sorted({row.system for row in rows if row.label and row.system})
    innocent = [row for row in rows if not row.label and not row.system and row.source not in ("gsm8k", "mitre-frr", "spec-bench")]
    return [replace(row, system=random.choice(systems)) for row in innocent] if systems else []


def prompt_rows(rows: Sequence[Prompt], tools: Head) -> Rows:
    """Rows for the head "input"."""
    dense = [input_features(row.text, row.system, worst_pasted(row.text, tools)) for row in rows]
    weights = [WEIGHTS.get(row.source, 1.0) for row in rows]
    return Rows([grams(row.text) for row in rows], np.array(dense, np.float32), _labels(rows), np.array(weights, np.float32))


def _labels(rows: Sequence[Prompt]) -> Floats:
    return np.array([row.label for row in rows], dtype=np.float32)


def attacked(folder: Path, chat: Path | None, users: Sequence[Prompt], seed: int = 1) -> list[Document]:
    """The training documents: clean ones, and each once more with an attack or a harmless letter's sentence put into it."""
    random = Random(seed)
    clean = capped([row for row in data.documents(folder, chat) if row.part == "train"], 160)
    known = [row for row in data.instructions(folder) if row.part == "train" and row.source == "bipia-text"]
    asked = [
        row
        for row in users
        if row.part == "train" and not row.label and row.source in ("oasst", "self-instruct", "halueval") and len(row.text) < 300
    ]
    found = list(clean)
    for document in clean:
        times = 3 if document.source.startswith("bipia") else 1
        found += [data.insert(document, _attack(known, asked, random), random) for _ in range(times)]
        if random.random() < 0.5:
            harmless = data.insert(document, Prompt(templates.letter(random), False, "letter", "train"), random)
            found.append(replace(harmless, attack=""))
    traps = [
        row for row in users if row.part == "train" and not row.label and row.source in ("notinject", "wildguard", "oasst", "pint-benign")
    ]
    found += [Document(row.text, f"lone-{row.source}", "train") for row in capped(traps, 120)]
    lone = [make(random) for make in (templates.edit, templates.override) for _ in range(100)]
    return found + [Document(text, "lone-attack", "train", text) for text in lone]


def _attack(known: Sequence[Prompt], asked: Sequence[Prompt], random: Random) -> Prompt:
    at = random.random()
    if at < 0.3 and known:
        return random.choice(known)
    if at < 0.42 and asked:
        return random.choice(asked)
    make = templates.edit if at < 0.7 else templates.task if at < 0.88 else templates.override
    return Prompt(make(random), True, "made", "train")


def capped(rows: Iterable[Row], most: int) -> list[Row]:
    """No more than `most` of each source."""
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        seen[row.source] += 1
        if seen[row.source] <= most:
            found.append(row)
    return found


def document_rows(documents: Sequence[Document], seed: int = 2) -> Rows:
    """Rows for the head "tools": the statements of each document, of the innocent ones a few."""
    random = Random(seed)
    texts: list[str] = []
    dense: list[Floats] = []
    labels: list[float] = []
    weights: list[float] = []
    for document in documents:
        found = [document.text[start:end] for start, end in statements(document.text)[:60]]
        features = tool_features(found, table=document.text.count("|") > 8)
        for text, row in zip(found, features, strict=True):
            attack = bool(document.attack) and text in document.attack
            if attack or len(found) <= KEPT or random.random() < KEPT / len(found):
                texts.append(text)
                dense.append(row)
                labels.append(float(attack))
                weights.append(ATTACKED if attack else WEIGHTS["notinject"] if document.source == "lone-notinject" else 1.0)
    return Rows([grams(text) for text in texts], np.array(dense), np.array(labels, np.float32), np.array(weights, np.float32))


def toxic(labelled: Sequence[Prompt], known: Sequence[Prompt], answers: Sequence[Document]) -> list[Prompt]:
    """The training texts of the head "toxicity": labelled ones, and plain prompts and answers, of which none is toxic.

    RealToxicityPrompts is reported on and not learnt from: its rows begin texts that may become toxic, and are mostly not so themselves. Nor
    are HateCheck's insults of people and things: it calls them not hateful, which is not to say harmless.
    """
    found = [row for row in labelled if row.part == "train" and row.source != "rtp" and row.kind not in ABUSE]
    found += [row for row in known if row.part == "train" and not row.label and row.source in CHAT]
    plain = [row for row in answers if row.part == "train" and row.source in ("halueval-answers", "oasst-answers", "spec-bench")]
    return found + [Prompt(row.text[:600], False, "answers", "train") for row in plain]


def toxic_rows(rows: Sequence[Prompt]) -> Rows:
    """Rows for the head "toxicity"."""
    dense = np.array([toxicity_features(row.text) for row in rows], dtype=np.float32)
    weights = np.array([_toxic_weight(row) for row in rows], dtype=np.float32)
    return Rows([grams(row.text) for row in rows], dense, _labels(rows), weights)


def _toxic_weight(row: Prompt) -> float:
    """HateCheck's harmless rows name the groups that its hateful ones do, and are fewer: without a weight the name is what is learnt."""
    if row.source == "hatecheck":
        return 0.7 if row.label else 2.0
    return 2.0 if row.source == "moderation" else 1.0
