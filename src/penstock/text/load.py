"""From a model's files to its tokenizer."""

from __future__ import annotations

from penstock.core.errors import LoadError
from penstock.files import ModelFiles
from penstock.text import huggingface, scored
from penstock.text.tokenizer import Tokenizer


def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """The model's tokenizer, whichever way it is written. Raises LoadError for none, a broken one or an unknown kind."""
    if files.format == "gguf":
        return _from_gguf(files)
    if files.format == "llama2c":
        return scored.from_llama2c(files)
    return _from_folder(files)


def _from_gguf(files: ModelFiles) -> Tokenizer:
    from penstock.files.gguf import GGUFFile
    from penstock.text.gguf import from_metadata

    return from_metadata(GGUFFile(files.path).metadata)


def _from_folder(files: ModelFiles) -> Tokenizer:
    if (files.path / "tokenizer.json").is_file():
        return huggingface.from_json(files)
    if (files.path / "tokenizer.model").is_file():
        return scored.from_model(files)
    if (files.path / "vocab.json").is_file() and (files.path / "merges.txt").is_file():
        return huggingface.from_merges(files)
    raise LoadError(
        f"{files.path} holds no tokenizer: neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt",
        hint="copy the model's tokenizer files beside its weights",
    )
