"""Price lists as files: what a list says, and reading it.

    [[lists]]                                   # a vendor's list: for upstreams that are this vendor's
    vendor = "openai"
    hosts = ["api.openai.com"]
    source = "https://platform.openai.com/docs/pricing"
    as_of = 2026-11-21
    prices = [{ models = ["gpt-4o"], prompt = 2.50, cached = 1.25, completion = 10 }]

    [[prices]]                                  # a price of one's own: for one upstream, or wherever the model is served
    upstream = "vllm"
    models = ["*"]
    prompt = 0.10
    completion = 0.40

Prices are US dollars per million tokens, read exactly as written. The JSON table of LiteLLM (`model_prices_and_context_window.json`)
can be read, too: standard rates of the vendors known here.
"""

from __future__ import annotations

import datetime as dt
import json
import tomllib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from penstock.core.config import UpstreamSettings
from penstock.core.errors import ConfigError

SHIPPED = Path(__file__).parents[1] / "builtin" / "prices.toml"
MILLION = 10**6


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one or more models cost: US dollars per million tokens; `request` per call.

    Where a model has several entries, the latest `since` that has come holds, and of those the highest `above_prompt_tokens` that
    the prompt exceeds.
    """

    models: Annotated[list[str], Meta(min_length=1)]  # as the upstream names them, or as served; "*": all
    upstream: str = ""  # only there; "": wherever the list holds
    prompt: Decimal
    completion: Decimal
    cached: Decimal | None = None  # None: as `prompt`
    cache_write: Decimal | None = None  # None: as `prompt`
    reasoning: Decimal | None = None  # None: as `completion`
    request: Decimal = Decimal(0)
    above_prompt_tokens: Annotated[int, Meta(ge=0)] = 0
    since: dt.date = dt.date.min


class PriceList(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prices of one vendor, with where they are from and when they were last compared with that."""

    vendor: str
    source: str
    as_of: dt.date
    prices: list[Entry]
    hosts: list[str] = []
    kinds: list[str] = []

    def serves(self, upstream: UpstreamSettings) -> bool:
        """Whether `upstream` is this vendor's: by the host of its url, or by its kind where it has no url."""
        if not upstream.url:
            return upstream.kind in self.kinds
        host = urlsplit(upstream.url).hostname or ""
        return any(host == known or host.endswith((f".{known}", f"-{known}")) for known in self.hosts)


class PriceFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file says."""

    lists: list[PriceList] = []
    prices: list[Entry] = []


def read_prices(path: Path) -> PriceFile:
    """Raises ConfigError where the file is not there or says what cannot be."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return PriceFile(lists=list(_litellm(json.loads(text, parse_float=Decimal), path)))
        return _checked(msgspec.convert(tomllib.loads(text, parse_float=Decimal), PriceFile))
    except OSError as error:
        raise ConfigError(f"cannot read the price file {path}: {error.strerror}", hint="see prices.file") from None
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError(f"the price file {path} is not valid: {error}", hint="docs/metering.md shows what it looks like") from None


def _checked(file: PriceFile) -> PriceFile:
    """Raises ValueError for money that is none: msgspec has no bounds for Decimal."""
    for entry in (*file.prices, *(entry for prices in file.lists for entry in prices.prices)):
        for rate in (entry.prompt, entry.completion, entry.cached, entry.cache_write, entry.reasoning, entry.request):
            if rate is not None and not (rate.is_finite() and rate >= 0):
                raise ValueError(f"a price of {', '.join(entry.models)} is {rate}, and must be at least 0")
    return file


def shipped_lists() -> Sequence[PriceList]:
    """Those that come with the package."""
    return read_prices(SHIPPED).lists


_LITELLM = {  # its provider: our vendor
    "openai": "openai", "text-completion-openai": "openai", "anthropic": "anthropic", "gemini": "google", "mistral": "mistral",
    "vertex_ai-language-models": "vertex", "vertex_ai-embedding-models": "vertex", "deepseek": "deepseek", "groq": "groq", "xai": "xai",
    "bedrock": "bedrock", "bedrock_converse": "bedrock",
}  # fmt: skip
_RATES = {
    "prompt": "input_cost_per_token",
    "completion": "output_cost_per_token",
    "cached": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "reasoning": "output_cost_per_reasoning_token",
}
_TIERS = {0: "", 128_000: "_above_128k_tokens", 200_000: "_above_200k_tokens"}


def _litellm(table: dict[str, dict[str, object]], path: Path) -> Iterator[PriceList]:
    """The table's entries for each vendor of the shipped book, by whose hosts they apply."""
    as_of = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).date()
    for known in shipped_lists():
        providers = {name: str(row.get("litellm_provider")) for name, row in table.items()}
        named = [name for name, provider in providers.items() if _LITELLM.get(provider) == known.vendor]
        prices = [entry for name in named for entry in _entries(name.removeprefix(f"{providers[name]}/"), table[name])]
        yield msgspec.structs.replace(known, source=str(path), as_of=as_of, prices=prices)


def _entries(model: str, row: dict[str, object]) -> Iterator[Entry]:
    for above, suffix in _TIERS.items():
        rates = {
            ours: Decimal(str(row[theirs + suffix])) * MILLION for ours, theirs in _RATES.items() if row.get(theirs + suffix) is not None
        }
        if "prompt" in rates:
            fixed = {"models": [model], "completion": Decimal(0), "above_prompt_tokens": above}
            yield msgspec.convert(fixed | rates, Entry)
