"""Train a built-in model from a seed: ``python -m training.train --seed 0 --minutes 50 --out FOLDER``.

With ``--minutes`` the learning rate follows the clock, so a slower machine takes fewer steps; with ``--steps``
the run is the same on every machine but for rounding. Usable weights are written to FOLDER all along.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from training.batches import Batch, Packer, documents
from training.curriculum.dialogue import converse
from training.curriculum.turn import MINI
from training.model import Llama, Shape, export
from training.optim import Muon
from training.tokenizer import save_tokenizer, train_tokenizer

MATRIX_RATE, VECTOR_RATE = 0.02, 0.003
WARMUP, DECAY = 0.01, 0.45  # shares of the run
AVERAGE = 0.995  # of the weights that are saved
LONG_EVERY = 16
SHORT_ROWS, LONG_ROWS = (16, 256), (2, 2048)  # rows, length


@dataclass(frozen=True, slots=True)
class Budget:
    """How far a run is: by its steps where they are fixed, else by the clock."""

    steps: int | None
    seconds: float
    peak: float = 1.0  # of the learning rates, as a share of the usual

    def progress(self, step: int, elapsed_s: float) -> float:
        return step / self.steps if self.steps else elapsed_s / self.seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """Which model is made, and from what: with more ``layers`` than the model in ``start`` has, it is grown."""

    name: str
    layers: int
    start: Path | None
    compiled: bool


def rate_at(progress: float) -> float:
    """Warm up, hold, decay linearly to zero; ``progress`` runs from 0 to 1."""
    return max(0.0, min(1.0, (progress + 1e-3) / WARMUP, (1 - progress) / DECAY))


def working_type() -> torch.dtype:
    """bfloat16 where the CPU multiplies it natively, else float32."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return torch.bfloat16 if "amx_bf16" in flags or "avx512_bf16" in flags else torch.float32


def build_tokenizer(seed: int, vocabulary: int) -> Tokenizer:
    """A tokenizer of the curriculum's own text."""
    rng = Random(seed)
    turns = (turn for _ in range(60_000) for turn in converse(rng, 1, "train").turns)
    return train_tokenizer((text for turn in turns for text in (turn.user[:600], turn.answer)), vocabulary)


class Trainer:
    """One run. Owns the model, its optimizers and the running average that is saved."""

    def __init__(self, seed: int, tokenizer: Tokenizer, shape: Shape, name: str, compiled: bool) -> None:
        torch.manual_seed(seed)
        self.model, self.dtype = Llama(shape), working_type()
        matrices = [p for p in self.model.layers.parameters() if p.ndim == 2]
        vectors = [p for p in self.model.parameters() if all(p is not m for m in matrices)]
        self.muon = Muon(matrices, self.dtype)
        self.adam = torch.optim.AdamW(vectors, lr=VECTOR_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.loss = torch.compile(self.model.loss, dynamic=False) if compiled else self.model.loss
        self.short, self.long = (
            Packer(documents(tokenizer, Random(f"{seed}:{length}"), length, name), rows, length) for rows, length in (SHORT_ROWS, LONG_ROWS)
        )
        self.tokens = 0

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on from exported weights; the layers that they lack stay what they are, the identity."""
        for name, parameter in self.model.named_parameters():
            if f"model.{name}" in weights:
                parameter.copy_(weights[f"model.{name}"])
            self.average[name].copy_(parameter)

    def step(self, number: int, rate: float) -> Tensor:
        """One update; returns its loss."""
        batch = (self.long if number % LONG_EVERY == LONG_EVERY - 1 else self.short).batch()
        self.tokens += batch.ids.numel()
        loss = self._backward(batch)
        self.muon.step(MATRIX_RATE * rate)
        self.adam.param_groups[0]["lr"] = VECTOR_RATE * rate
        self.adam.step()
        self.adam.zero_grad()
        self._follow(min(AVERAGE, number / (number + 10)))
        return loss

    def _backward(self, batch: Batch) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            loss: Tensor = self.loss(batch.ids, batch.mask, batch.places, batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    @torch.no_grad()
    def _follow(self, share: float) -> None:
        for name, parameter in self.model.named_parameters():
            self.average[name].lerp_(parameter, 1 - share)


def save(trainer: Trainer, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a complete model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    export(trainer.average, trainer.model.shape, folder)
    save_tokenizer(tokenizer, folder, trainer.model.shape.positions)


def deepened(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """``weights`` with their layers spread evenly over ``layers`` places (Chang et al. 2018, who grow ResNets so)."""
    have = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers."))
    parts = ((name.split("."), tensor) for name, tensor in weights.items())
    return {".".join([*p[:2], str(int(p[2]) * layers // have), *p[3:]] if p[1] == "layers" else p): tensor for p, tensor in parts}


def begin(seed: int, plan: Plan) -> tuple[Trainer, Tokenizer]:
    """A trainer with fresh weights, or with those (and the tokenizer) of the folder ``plan.start``."""
    shape, start = Shape(layers=plan.layers), plan.start
    tokenizer = Tokenizer.from_file(str(start / "tokenizer.json")) if start else build_tokenizer(seed, shape.vocabulary)
    trainer = Trainer(seed, tokenizer, shape, plan.name, plan.compiled)
    if start:
        trainer.load(deepened(load_file(start / "model.safetensors"), shape.layers))
    return trainer, tokenizer


def train(seed: int, budget: Budget, folder: Path, plan: Plan) -> dict[str, object]:
    """Run to the end of the budget; returns what was measured."""
    trainer, tokenizer = begin(seed, plan)
    started, step, mean, saved_s = time.monotonic(), 0, 8.0, 0.0
    while (progress := budget.progress(step, time.monotonic() - started)) < 1:
        mean += 0.02 * (float(trainer.step(step, budget.peak * rate_at(progress))) - mean)
        step += 1
        elapsed_s = time.monotonic() - started
        if step % 50 == 0:
            print(f"step {step} loss {mean:.4f} progress {progress:.3f} tokens/s {trainer.tokens / elapsed_s:.0f}", flush=True)
        if elapsed_s - saved_s > 120:
            save(trainer, tokenizer, folder)
            saved_s = elapsed_s
    save(trainer, tokenizer, folder)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return {
        "seed": seed,
        "steps": step,
        "tokens": trainer.tokens,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "parameters": parameters,
        "final_loss": round(mean, 4),
        **hardware(trainer.dtype),
    }


def hardware(dtype: torch.dtype) -> dict[str, object]:
    """What the run ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown CPU")
    features = next((line for line in lines if line.startswith("flags")), "")
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in features]
    return {
        "cpu": f"{name} ({', '.join(wide)})",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


def main() -> None:
    """Parse the command line, train, write ``run.json``, one record for each stage, for the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="do without a C++ compiler")
    parser.add_argument("--name", default=MINI, help="what the model calls itself")
    parser.add_argument("--layers", type=int, default=6, help="a multiple of those of --start grows it")
    parser.add_argument("--start", type=Path, help="folder to go on from, instead of fresh weights")
    parser.add_argument("--peak", type=float, default=1.0, help="share of the usual learning rate")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    plan = Plan(given.name, given.layers, given.start, not given.eager)
    run = train(given.seed, Budget(given.steps, given.minutes * 60, given.peak), given.out, plan)
    length = f"--steps {given.steps}" if given.steps else f"--minutes {given.minutes:g}"
    start = f" --peak {given.peak:g} --start FOLDER" if given.start else ""
    grown = "" if given.name == MINI else f" --name {given.name} --layers {given.layers}"
    run["command"] = f"python -m training.train --seed {given.seed} {length} --threads {given.threads}{grown}{start} --out FOLDER"
    record = given.start / "run.json" if given.start else None
    earlier = json.loads(record.read_text()) if record and record.exists() else []
    (given.out / "run.json").write_text(json.dumps([*earlier, run], indent=2) + "\n")


if __name__ == "__main__":
    main()
