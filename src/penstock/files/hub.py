"""Fetching a model from the Hugging Face hub into its usual cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.core.errors import LoadError

_WANTED = ("*.safetensors", "*.json", "tokenizer.model", "merges.txt", "*.jinja")
_UNWANTED = ("*/*", "consolidated*")  # other runtimes' copies of the same weights


def download(repo: str, *, progress: bool) -> Path:
    """The local folder of `repo` ("org/name") with weights, configuration and tokenizer; cached files are not fetched again.

    Raises LoadError, which tells an absent, gated or private repository from a network that cannot be reached.
    """
    import huggingface_hub  # slow to import, and needed for ids only

    bar = None if progress else _silent_bar()
    try:
        return Path(huggingface_hub.snapshot_download(repo, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED), tqdm_class=bar))
    except Exception as error:  # the hub client leaks its transport's exceptions, which change with its version
        raise _translated(repo, error) from error


def _silent_bar() -> type[Any]:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Silent(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"disable": True}))  # type: ignore[no-untyped-call]

    return Silent


def _translated(repo: str, error: Exception) -> LoadError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return LoadError(
            f"{repo} is gated: its owner has not let you in",
            hint=f"ask for access at https://huggingface.co/{repo}, then run `hf auth login` or set HF_TOKEN",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return LoadError(
            f"Hugging Face has no model {repo!r} that you may read",
            hint="check the spelling; for a private one run `hf auth login` or set HF_TOKEN",
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return LoadError(
            f"{repo} is not in the local cache and Hugging Face cannot be reached",
            hint=f"unset HF_HUB_OFFLINE and check the network, or run `hf download {repo}` on a machine that is online, "
            "copy the folder here and pass its path",
        )
    return LoadError(f"{repo} cannot be downloaded: {error}", hint="try again, or download it elsewhere and pass the folder")
