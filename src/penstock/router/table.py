"""The rows that a classifier learns from: how good each model's answer to each prompt was.

    {"prompt": "…", "model": "small", "score": 0.0, "cost": 0.0001, "group": "physics"}

One row for each prompt and model, as JSON lines or as CSV with these columns. `score` is from 0 (wrong) to 1 (right). `cost` (dollars) and
`group` may be missing: costs order the models, and groups (subjects, customers, tasks) are what a classifier is tested on
unseen. Rows of one prompt are those with the same text.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penstock.core.errors import UserError

COLUMNS = ("prompt", "model", "score", "cost", "group")
NEEDED = COLUMNS[:3]
HINT = 'a row is {"prompt": "…", "model": "…", "score": 0 to 1} and perhaps "cost" and "group"'

Floats = NDArray[np.float32]


class Row(Struct, frozen=True):
    """One answer of one model."""

    prompt: str
    model: str
    score: float
    cost: float | None = None
    group: str = ""


class Table(Struct, frozen=True, kw_only=True):
    """scores [prompts, models], from 0 to 1. Models go from the cheapest to the dearest; without costs from the worst to the best."""

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    scores: Floats
    groups: tuple[str, ...]  # of each prompt; "" where none was given
    costs: tuple[float, ...] = ()  # mean dollars of an answer of each model; empty where they are not known of all rows
    digest: str = ""  # of the rows

    def only(self, places: NDArray[np.int64]) -> Table:
        """Some of its prompts."""
        return Table(
            prompts=tuple(self.prompts[place] for place in places),
            models=self.models,
            scores=self.scores[places],
            groups=tuple(self.groups[place] for place in places),
        )

    def between(self, weak: str, strong: str) -> Table:
        """Two of its models."""
        places = [self.models.index(weak), self.models.index(strong)]
        costs = tuple(self.costs[place] for place in places) if self.costs else ()
        return Table(
            prompts=self.prompts, models=(weak, strong), scores=self.scores[:, places], groups=self.groups, costs=costs, digest=self.digest
        )


def read_table(path: Path) -> Table:
    """Raises UserError that names the file and the line of the first thing that is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", hint=HINT) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte {error.start}", hint="save it as UTF-8") from None
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(path, text)
    return make_table([_row(where, fields) for where, fields in rows], str(path))


def make_table(rows: Sequence[Row], name: str = "the table") -> Table:
    """Prompts that lack some model are left out. Raises UserError for fewer than two models, or where no prompt has all of them."""
    models = list(dict.fromkeys(row.model for row in rows))
    if len(models) < 2:
        raise UserError(f"{name} has rows of {len(models)} models, there must be two at least", hint=HINT)
    by_prompt: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt, {})[row.model] = row
    whole = {prompt: found for prompt, found in by_prompt.items() if len(found) == len(models)}
    if not whole:
        raise UserError(f"{name} has no prompt with a row of each of {', '.join(models)}", hint="score every model on the same prompts")
    costs = _mean_costs(models, whole.values())
    scored = {model: math.fsum(found[model].score for found in whole.values()) for model in models}
    models.sort(key=lambda model: (costs or scored)[model])
    scores = np.array([[found[model].score for model in models] for found in whole.values()], dtype=np.float32)
    groups = tuple(found[models[0]].group for found in whole.values())
    written = json.dumps([sorted(whole), models, sorted(scores.sum(axis=1).tolist())])
    return Table(
        prompts=tuple(whole),
        models=tuple(models),
        scores=scores,
        groups=groups,
        costs=tuple(costs[model] for model in models) if costs else (),
        digest=hashlib.sha256(written.encode("utf-8", "replace")).hexdigest()[:32],
    )


def _mean_costs(models: Iterable[str], found: Iterable[Mapping[str, Row]]) -> dict[str, float]:
    """Empty where some row has none."""
    listed = list(found)
    costs = {model: [rows[model].cost for rows in listed] for model in models}
    known = {model: [cost for cost in each if cost is not None] for model, each in costs.items()}
    if any(len(each) < len(listed) for each in known.values()):
        return {}
    return {model: math.fsum(each) / len(each) for model, each in known.items()}


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where} is not JSON: {error}", hint=HINT) from None
        if not isinstance(fields, dict):
            raise UserError(f"{where} is not a JSON object", hint=HINT)
        yield where, fields


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            where = f"{path}:{reader.line_num}"
            if None in fields or None in fields.values():
                raise UserError(f"{where} has not as many cells as the first line", hint='a cell with commas or line breaks needs "quotes"')
            yield where, {name: value for name, value in fields.items() if value != "" or name == "prompt"}
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num} is not CSV: {error}", hint='a cell with commas or line breaks needs "quotes"') from None


def _row(where: str, fields: Mapping[str, object]) -> Row:
    missing = next((name for name in NEEDED if name not in fields), None)
    if missing is not None:
        raise UserError(f"{where} has no {missing!r}", hint=HINT)
    unknown = next((name for name in fields if name not in COLUMNS), None)
    if unknown is not None:
        raise UserError(f"{where} has the unknown field {unknown!r}", hint=f"known are {', '.join(COLUMNS)}")
    cost = None if fields.get("cost") is None else _number(where, "cost", fields["cost"], math.inf)
    score = _number(where, "score", fields["score"], 1.0)
    prompt, model, group = fields["prompt"], fields["model"], fields.get("group", "")
    if not isinstance(prompt, str) or not isinstance(model, str) or not isinstance(group, str) or not model:
        raise UserError(f"{where}: prompt, model and group are texts, and the model has a name", hint=HINT)
    return Row(prompt, model, score, cost, group)


def _number(where: str, name: str, given: object, most: float) -> float:
    try:
        number = float(given) if isinstance(given, int | float | str) else math.nan
    except ValueError:
        number = math.nan
    if not 0 <= number <= most or math.isinf(number):
        limit = "0 to 1" if most == 1 else "0 or more"
        raise UserError(f"{where}: {name} is {given!r}, it must be {limit}", hint=HINT)
    return number
