"""Trains the router's classifier on a table of the user's, and says what it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from penstock.core.errors import ConfigError, UserError
from penstock.embed import open_vectors
from penstock.router.estimator import Estimator, Prompts, load, prompts_of, save
from penstock.router.evaluation import Report, Told, cross_validated, judged, report
from penstock.router.table import Table, read_table
from penstock.router.training import Encoder, train

Which = Literal["auto", "minilm", "static", "none"]
UNSEEN, NEW, KNOWN = "groups that it has not seen", "prompts that it has not seen", "the file as it is"


def trained(file: Path, out: Path, which: Which) -> Estimator:
    """Learn from `file`, write `out`. Raises UserError, MissingExtra, OSError."""
    table = read_table(file)
    given, encoder = encoded(table, which)
    estimator = train(table, given, encoder)
    save(estimator, out)
    return estimator


def evaluated(table: Table, which: Which, classifier: Path | None, told: Told) -> Iterator[tuple[str, Report]]:
    """`table` has two models. A classifier is judged as it is, else one is trained for each fold. Raises UserError, ConfigError."""
    if classifier is None:
        given, _ = encoded(table, which)
        yield NEW, report(table, list(cross_validated(table, given, unseen=False, told=told)))
        if len(set(table.groups)) >= 10:
            yield UNSEEN, report(table, list(cross_validated(table, given, unseen=True, told=told)))
        return
    estimator = load(classifier)
    missing = [model for model in table.models if model not in estimator.card.models]
    if missing:
        raise ConfigError(f"{classifier} does not know {missing[0]!r}", hint=f"it knows {', '.join(estimator.card.models)}")
    if estimator.card.table == table.digest:
        told("it was trained on this very table: its figures flatter it")
    given, encoder = encoded(table, _which(estimator, which))
    if encoder.digest != estimator.card.encoder:
        raise ConfigError(f"{classifier} reads vectors of {estimator.card.encoder_name!r}", hint="choose them with --encoder")
    yield KNOWN, report(table, [judged(table, given, estimator)])


def chosen_pair(table: Table, weak: str | None, strong: str | None) -> Table:
    """The two models that are compared: by default the first and the last. Raises UserError."""
    for model in (weak, strong):
        if model is not None and model not in table.models:
            raise UserError(f"the table has no model {model!r}", hint=f"it has {', '.join(table.models)}")
    pair = table.between(weak or table.models[0], strong or table.models[-1])
    if pair.scores[:, 1].mean() <= pair.scores[:, 0].mean():
        raise UserError(f"{pair.models[1]!r} is no better than {pair.models[0]!r}", hint="choose two with --weak and --strong")
    return pair


def encoded(table: Table, which: Which) -> tuple[Prompts, Encoder]:
    """What is read of the table's prompts."""
    if which == "none":
        return prompts_of(table.prompts, np.zeros((len(table.prompts), 0), dtype=np.float32)), Encoder()
    vectors = open_vectors(which)
    return prompts_of(table.prompts, vectors.now(table.prompts)), Encoder(vectors.name, vectors.digest)


def _which(estimator: Estimator, which: Which) -> Which:
    """The encoder of the file, where none was chosen."""
    if which != "auto":
        return which
    if not estimator.card.encoder:
        return "none"
    return "static" if estimator.card.encoder_name.startswith("static") else "minilm"
