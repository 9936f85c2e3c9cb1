"""Tables of two models' answers, in the forms that others publish them in, as rows of Penstock's own.

RouteLLM, GSM8K    CSV: `prompt`, and for each model a column of True and False; a file is a subject
LLMRouter          JSON: `question`, `scores` by model, perhaps `cluster_id`
Penstock           what `penstock router train` reads
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from penstock.router.table import Row, read_table

csv.field_size_limit(2**27)


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a file, of a tar of files, or of all files of a folder."""
    if path.is_dir():
        for inner in sorted(inner for inner in path.rglob("*") if inner.suffix in (".csv", ".gz") and inner.is_file()):
            yield from rows_of(inner)
    elif ".tar" in path.suffixes:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield from _read(Path(member.name), file.read())
    elif path.suffix == ".jsonl" or (path.suffix == ".csv" and b"score" in path.read_bytes()[:200]):
        table = read_table(path)
        for prompt, scores, group in zip(table.prompts, table.scores, table.groups, strict=True):
            yield from (Row(prompt, model, float(score), None, group) for model, score in zip(table.models, scores, strict=True))
    else:
        yield from _read(path, path.read_bytes())


def _read(path: Path, content: bytes) -> Iterator[Row]:
    if path.suffix == ".gz":
        path, content = path.with_suffix(""), gzip.decompress(content)
    text = content.decode("utf-8")
    if path.suffix == ".json":
        for entry in json.loads(text):
            group = str(entry["cluster_id"]) if "cluster_id" in entry else ""
            yield from (Row(entry["question"], model, float(score), None, group) for model, score in entry["scores"].items())
        return
    for fields in csv.DictReader(io.StringIO(text, newline="")):
        prompt = fields.pop("prompt")
        known = {model: value for model, value in fields.items() if value in ("True", "False")}
        yield from (Row(prompt, model, float(value == "True"), None, path.stem) for model, value in known.items())
