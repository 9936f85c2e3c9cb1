"""Train the guards' heads: ``python -m training.guards --data FOLDER --out FOLDER``, the same files for the same data.

`--data` holds the guardrail sets; plain chat is read from ``FOLDER/../prompts`` where that is there, or from `--chat`. Only the part
"train" of the split is learnt from, only the part "calibrate" sets thresholds, and `benchmarks/guards.py` reports on the part "test".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from penstock.guard.head import BLOCK, Head, logistic
from penstock.guard.injection import Heads, read_document, read_prompt
from penstock.guard.support import lacking, passages
from penstock.guard.toxicity import toxicity_of
from training.guards import data, rows
from training.guards.data import Answer, Document, Prompt
from training.guards.fit import Fitted, Penalty, fit

Floats = NDArray[np.float32]

PENALTY = Penalty(grams=2e-4, dense=1e-3)
FALSE_ALARMS = 0.0125  # of the innocent texts of each kind in the part "calibrate"


def main() -> None:
    """Train, set the thresholds, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the guardrail sets")
    parser.add_argument("--chat", type=Path, help="folder of plain prompts (default: DATA/../prompts)")
    parser.add_argument("--out", type=Path, required=True, help="where the heads are written")
    arguments = parser.parse_args()
    chat = arguments.chat or arguments.data.parent / "prompts"
    train(arguments.data, chat if chat.is_dir() else None, arguments.out)


def train(folder: Path, chat: Path | None, out: Path, number: int = 1200) -> None:
    """Each head in turn, with `number` generated prompts of each sort; the head "input" uses what the head "tools" says of pasted text."""
    out.mkdir(parents=True, exist_ok=True)
    known = data.attacks(folder) + data.benign(folder, chat)
    documents = data.documents(folder, chat)
    tools, tools_threshold = tools_head(folder, chat, known, out)
    card: dict[str, dict[str, float | list[float]]] = {
        "tools": {"threshold": tools_threshold},
        "input": {"threshold": input_head(known, tools, out, number)},
        "toxicity": {"threshold": toxicity_head(data.toxic(folder), known, documents, out)},
        "grounded": grounded_weights(data.answers(folder)),
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def tools_head(folder: Path, chat: Path | None, known: Sequence[Prompt], out: Path) -> tuple[Head, float]:
    """The head "tools" and its threshold: clean documents, and traps as if a tool had returned them."""
    tools = _write(out, "tools", _fitted(rows.document_rows(rows.attacked(folder, chat, known)), "tools"))
    clean = [row for row in data.documents(folder, chat) if row.part == "calibrate"]
    lone = [Document(row.text, row.source, row.part) for row in known if row.part == "calibrate" and row.source == "notinject"]
    return tools, max(_quantile(_document_scores(found, tools)) for found in (clean, lone) if found)


def input_head(known: Sequence[Prompt], tools: Head, out: Path, number: int) -> float:
    """Write the head "input"; its threshold: traps, plain chat, and both behind system prompts of others."""
    head = _write(out, "input", _fitted(rows.prompt_rows(rows.prompts(known, number), tools), "input"))
    innocent = [row for row in known if row.part == "calibrate" and not row.label]
    behind = rows.paired(known, "calibrate", Random(3))
    return max(_quantile(_prompt_scores(kind, head, tools)) for kind in (*_kinds(innocent), behind) if kind)


def toxicity_head(labelled: Sequence[Prompt], known: Sequence[Prompt], documents: Sequence[Document], out: Path) -> float:
    """Write the head "toxicity"; its threshold: plain chat."""
    head = _write(out, "toxicity", _fitted(rows.toxic_rows(rows.toxic(labelled, known, documents)), "toxicity"))
    plain = [row for row in known if row.part == "calibrate" and row.source in rows.CHAT]
    real = [row for row in plain if row.source == "oasst"]  # what people wrote to an assistant, in many languages
    return max((_quantile([toxicity_of(row.text, head) for row in found]) for found in (plain, real) if found), default=0.5)


def _fitted(found: rows.Rows, name: str) -> Fitted:
    print(f"{name}: {len(found.labels)} rows, {int(found.labels.sum())} of them attacks", flush=True)
    return fit(found.grams, found.dense, found.labels, found.weights, PENALTY)


def _kinds(innocent: Sequence[Prompt]) -> Iterable[list[Prompt]]:
    """Traps and plain chat apart: the false alarms of each are bounded."""
    traps = [row for row in innocent if row.source == "notinject"]
    return traps, [row for row in innocent if row.source != "notinject"]


def _quantile(scores: Sequence[float], share: float = FALSE_ALARMS) -> float:
    """The score that no more than a share of such texts exceed (split conformal); the highest where there are few."""
    ordered = sorted(scores)
    return ordered[min(int(np.ceil((1 - share) * (len(ordered) + 1))), len(ordered)) - 1]


def _prompt_scores(found: Iterable[Prompt], head: Head, tools: Head) -> list[float]:
    heads = Heads(head, tools, 1.0, 1.0)
    return [read_prompt(row.text, row.system, heads) for row in found]


def _document_scores(found: Iterable[Document], tools: Head) -> list[float]:
    return [max((logistic(one.logit) for one in read_document(row.text, tools)), default=0.0) for row in found]


def grounded_weights(found: Sequence[Answer]) -> dict[str, float | list[float]]:
    """Weights by Newton's method on the part "train"; the threshold that one right answer in twenty exceeds, on "calibrate"."""
    signs = {row: lacking(row.text, passages(row.knowledge, row.question)) for row in found}
    train, held = ([row for row in found if row.part == part] for part in ("train", "calibrate"))
    x = np.array([[*signs[row], 1.0] for row in train])
    y = np.array([not row.grounded for row in train], dtype=np.float64)
    weights = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ weights))
        weights += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.eye(len(weights)), x.T @ (y - p) - weights)
    right = [logistic(float(signs[row] @ weights[:-1] + weights[-1])) for row in held if row.grounded]
    threshold = _quantile(right, 0.05)
    return {
        "weights": [round(float(weight), 4) for weight in weights[:-1]],
        "bias": round(float(weights[-1]), 4),
        "threshold": round(threshold, 4),
    }


def _write(out: Path, name: str, fitted: Fitted) -> Head:
    """The head as it is shipped: buckets in 8 bits, each block with its scale. It is read back, so that it is judged as shipped."""
    blocks = fitted.buckets.reshape(-1, BLOCK)
    scales = (np.abs(blocks).max(axis=1) / 127 + 1e-12).astype(np.float32)
    small = np.round(blocks / scales[:, None]).astype(np.int8)
    tensors = {"buckets": small.reshape(-1), "scales": scales, "dense": fitted.dense, "bias": np.array([fitted.bias], dtype=np.float32)}
    (out / f"{name}.safetensors").write_bytes(save(tensors))
    weights = (small * scales[:, None]).reshape(-1).astype(np.float32)
    return Head(name, weights, fitted.dense, float(np.float32(fitted.bias)), 1.0, "")


if __name__ == "__main__":
    main()
