"""An operator's innocent traffic: read from a file, scored as the rules score it, made into a calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.core.errors import UserError
from penstock.guard.calibration import Calibration, calibrated, needed
from penstock.guard.decode import readings
from penstock.guard.head import Head, load_head, logistic
from penstock.guard.injection import Heads, read_document, read_prompt
from penstock.guard.sentences import sentences
from penstock.guard.toxicity import toxicity_of

RULES = ("injection", "toxicity")
FORM = '{"prompt": "…"} or {"messages": [{"role": "user", "content": "…"}]}'


class Turn(Struct, frozen=True):
    """A message as a file has it."""

    role: str
    content: str | None = None


class Sample(Struct, frozen=True, kw_only=True):
    """One request that was all right: a prompt, or messages."""

    prompt: str | None = None
    messages: list[Turn] = []


class Scores(Struct, frozen=True):
    """Of innocent texts, by the head that judges them."""

    head: Head
    values: list[float]


def read_samples(path: Path) -> list[Sample]:
    """One JSON object a line. Raises UserError."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line, type=Sample))
            except msgspec.DecodeError as error:
                raise UserError(f"{path}, line {number}: {error}", hint=f"each line is {FORM}") from error
            if found[-1].prompt is None and not found[-1].messages:
                raise UserError(f"{path}, line {number} has neither a prompt nor messages", hint=f"each line is {FORM}")
    return found


def scored(rule: str, samples: Iterable[Sample]) -> list[Scores]:
    """What each head of a rule says of the samples; a head without a text has no values. Raises UserError, LoadError."""
    if rule == "injection":
        heads = Heads(load_head("input"), load_head("tools"), 1.0, 1.0)
        prompts = [max(read_prompt(one, system, heads) for one in _readings(text)) for text, system in _asked(samples)]
        results = [max(_worst(one, heads.tools) for one in _readings(text)) for text in _said(samples, ("tool",))]
        return [Scores(heads.input, prompts), Scores(heads.tools, results)]
    if rule == "toxicity":
        head = load_head("toxicity")
        texts = [text for text, _ in _asked(samples)] + [
            part for text in _said(samples, ("assistant", "tool")) for part in _sentences(text)
        ]
        return [Scores(head, [max(toxicity_of(one, head) for one in _readings(text)) for text in texts])]
    raise UserError(f"the rule {rule!r} takes no calibration", hint=f"those that do: {', '.join(RULES)}")


def calibrate(rule: str, found: Iterable[Scores], false_alarms: float) -> Calibration:
    """The thresholds that keep false alarms within a share. Raises UserError: too few samples for any head."""
    limits = {}
    most = 0
    for scores in found:
        most = max(most, len(scores.values))
        if (limit := calibrated(scores.values, scores.head, false_alarms)) is not None:
            limits[scores.head.name] = limit
    if not limits:
        least = needed(false_alarms)
        message = f"{most} innocent texts are too few to bound false alarms by {false_alarms:.2%}: that takes {least}"
        raise UserError(message, hint="bring more traffic, or ask for more --false-alarms")
    return Calibration(rule=rule, false_alarms=false_alarms, limits=limits)


def _asked(samples: Iterable[Sample]) -> Iterator[tuple[str, str]]:
    """Each prompt with the system prompt before it."""
    for sample in samples:
        system = "\n".join(turn.content or "" for turn in sample.messages if turn.role in ("system", "developer"))
        if sample.prompt:
            yield sample.prompt, ""
        for turn in sample.messages:
            if turn.role == "user" and turn.content:
                yield turn.content, system


def _said(samples: Iterable[Sample], roles: tuple[str, ...]) -> Iterator[str]:
    for sample in samples:
        for turn in sample.messages:
            if turn.role in roles and turn.content:
                yield turn.content


def _readings(text: str) -> list[str]:
    return [text, *(view.text for view in readings(text))]


def _worst(text: str, tools: Head) -> float:
    return max((logistic(one.logit) for one in read_document(text, tools)), default=0.0)


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]
