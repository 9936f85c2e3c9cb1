"""What attempts cost: by hand, against a reference table, and never a guess."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.config import PriceSettings, UpstreamSettings
from penstock.core.errors import ConfigError
from penstock.core.types import EngineUse, Route, Usage
from penstock.meter import Pricing
from penstock.meter.book import MILLION, PriceList, shipped_lists
from penstock.meter.prices import make_pricing

REFERENCE = Path(__file__).parents[4] / "shared" / "data" / "prices" / "litellm_models" / "model_prices_and_context_window.json"
OPENAI = UpstreamSettings(name="openai", url="https://api.openai.com/v1", models={"big": "gpt-4o", "small": "gpt-4o-mini"})
CLAUDE = UpstreamSettings(name="claude", kind="anthropic")
VLLM = UpstreamSettings(name="vllm", url="http://localhost:8001/v1")
UPSTREAMS = [OPENAI, CLAUDE, VLLM]
USE = EngineUse(prefill_s=1.0, decode_s=2.0, kv_s=5.0)


def pricing(tmp_path: Path, text: str = "", **settings: object) -> Pricing:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    return make_pricing(PriceSettings(file=str(file), **settings), ["mini"], UPSTREAMS, today=lambda: dt.date(2026, 11, 21))  # type: ignore[arg-type]


def route(upstream: str, model: str) -> Route:
    return Route(upstream=upstream, model=model)


def test_each_kind_of_token_has_its_price(tmp_path: Path) -> None:
    """gpt-4o: 2.50 dollars per million, cached 1.25, output 10; Claude Haiku 4.5: 1, cached 0.1, written 1.25, output 5."""
    prices = pricing(tmp_path)
    usage = Usage(prompt_tokens=1000, cached_tokens=400, completion_tokens=50, reasoning_tokens=30)
    assert prices.cost(route("openai", "big"), usage, None) == Decimal("0.0015") + Decimal("0.0005") + Decimal("0.0005")
    usage = Usage(prompt_tokens=1000, cached_tokens=400, cache_write_tokens=100, completion_tokens=10)
    assert prices.cost(route("claude", "claude-haiku-4-5"), usage, None) == Decimal("0.000715")


def test_a_price_of_reasoning_and_a_price_per_call_are_added(tmp_path: Path) -> None:
    text = 'prices = [{ upstream = "vllm", models = ["*"], prompt = 1, completion = 2, reasoning = 3, request = 0.01 }]'
    usage = Usage(prompt_tokens=10, completion_tokens=10, reasoning_tokens=4)
    assert pricing(tmp_path, text).cost(route("vllm", "any"), usage, None) == Decimal("0.010034")


def test_long_prompts_are_priced_as_a_whole(tmp_path: Path) -> None:
    prices = pricing(tmp_path)
    sonnet = route("claude", "claude-sonnet-4-5")
    assert prices.cost(sonnet, Usage(prompt_tokens=200_000), None) == Decimal("0.6")
    assert prices.cost(sonnet, Usage(prompt_tokens=200_001), None) == Decimal("0.000006") * 200_001


def test_an_unknown_price_stays_unknown(tmp_path: Path) -> None:
    prices = pricing(tmp_path)
    usage = Usage(prompt_tokens=10)
    for unknown in (
        route("openai", "gpt-99"),
        route("openai", "gpt-4o-2031-01-01"),
        route("vllm", "gpt-4o"),  # a name alone makes nobody a vendor
        route("mini", "gpt-4o"),
        route("elsewhere", "gpt-4o"),
    ):
        assert prices.cost(unknown, usage, None) is None
        assert prices.worst(unknown, 10, 10) is None
    assert prices.cost(route("mini", "mini"), usage, USE) is None  # no price of the machine is set


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("http://localhost:8001/v1", False),
        ("https://api.openai.com.example.org/v1", False),
        ("https://notapi.openai.com/v1", False),
        ("https://example.org/api.openai.com", False),
    ],
)
def test_a_vendors_prices_hold_on_the_vendors_hosts(tmp_path: Path, url: str, known: bool) -> None:
    prices = make_pricing(PriceSettings(), [], [UpstreamSettings(name="u", url=url)])
    assert (prices.cost(route("u", "gpt-4o"), Usage(prompt_tokens=1), None) is not None) == known


def test_ones_own_price_goes_before_the_shipped_one_and_before_the_machines(tmp_path: Path) -> None:
    text = """
    [[prices]]
    upstream = "openai"
    models = ["gpt-4o"]
    prompt = 2.00
    completion = 8

    [[prices]]
    models = ["mini"]
    prompt = 0.1
    completion = 0.4

    [[lists]]
    vendor = "openai"
    hosts = ["api.openai.com"]
    source = "a contract"
    as_of = 2026-11-01
    prices = [{ models = ["gpt-4o-mini"], prompt = 0.10, completion = 0.5 }]
    """
    prices = pricing(tmp_path, text, machine_usd_per_hour=Decimal(3))
    million = Usage(prompt_tokens=MILLION)
    assert prices.cost(route("openai", "big"), million, None) == 2
    assert prices.cost(route("openai", "small"), million, None) == Decimal("0.1")
    assert prices.cost(route("mini", "mini"), million, USE) == Decimal("0.1")
    assert prices.cost(route("openai", "o3"), million, None) == 2  # still from the shipped list


def test_a_dated_price_holds_from_its_day_on() -> None:
    day = dt.date(2026, 1, 31)
    file = Path(__file__).parent / "dated_prices.toml"
    prices = make_pricing(PriceSettings(file=str(file)), [], [VLLM], today=lambda: day)
    found = []
    for day in (dt.date(2026, 1, 31), dt.date(2026, 2, 1), dt.date(2026, 3, 1), dt.date(2025, 1, 1)):  # noqa: B007
        cost = prices.cost(route("vllm", "any"), Usage(prompt_tokens=MILLION), None)
        found.append(cost)
    assert found == [1, 2, 3, None]


def test_an_engine_of_ones_own_costs_its_share_of_the_machine() -> None:
    """3.60 dollars per hour are 0.001 per second; of two engines each has half. 0.7 · (1 + 2) + 0.3 · 5 = 3.6 seconds."""
    prices = make_pricing(PriceSettings(machine_usd_per_hour=Decimal("3.6"), kv_share=0.3), ["mini", "maxi"], [])
    assert prices.cost(route("mini", "mini"), Usage(prompt_tokens=5), USE) == Decimal("0.0018")
    assert prices.cost(route("mini", "mini"), Usage(prompt_tokens=5), None) is None  # nobody measured


def test_the_worst_case_of_an_engine_is_all_of_it_until_the_deadline() -> None:
    prices = make_pricing(PriceSettings(machine_usd_per_hour=Decimal("3.6")), ["mini"], [], deadline_s=100)
    assert prices.worst(route("mini", "mini"), 10, 10) == Decimal("0.1")


PRICED = [(prices, entry.models[0]) for prices in shipped_lists() for entry in prices.prices]


@given(
    priced=st.sampled_from(PRICED), prompt=st.integers(0, 400_000), cached=st.integers(0, 400_000), written=st.integers(0, 400_000),
    completion=st.integers(0, 10**6), reasoning=st.integers(0, 10**6),
)  # fmt: skip
def test_no_call_costs_more_than_its_worst_case(
    priced: tuple[PriceList, str], prompt: int, cached: int, written: int, completion: int, reasoning: int
) -> None:
    prices, model = priced
    place = {"kind": prices.kinds[0]} if prices.kinds else {"url": f"https://{prices.hosts[0]}/v1"}
    book = make_pricing(PriceSettings(), [], [UpstreamSettings(name="u", **place)])  # type: ignore[arg-type]
    cached = min(cached, prompt)
    usage = Usage(
        prompt_tokens=prompt, cached_tokens=cached, cache_write_tokens=min(written, prompt - cached),
        completion_tokens=completion, reasoning_tokens=min(reasoning, completion),
    )  # fmt: skip
    cost = book.cost(route("u", model), usage, None)
    for more in (0, 1000):
        worst = book.worst(route("u", model), prompt + more, completion + more)
        assert cost is not None and worst is not None and 0 <= cost <= worst


def test_every_shipped_list_says_where_it_is_from_and_when() -> None:
    for prices in shipped_lists():
        assert prices.source.startswith("https://") and prices.as_of <= dt.date.today() and (prices.hosts or prices.kinds)
        names = [(model, entry.above_prompt_tokens, entry.since) for entry in prices.prices for model in entry.models]
        assert len(names) == len(set(names))


def test_the_shipped_prices_agree_with_a_reference_table() -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference table is not here")
    table = json.loads(REFERENCE.read_text(), parse_float=Decimal)
    compared = 0
    for prices in shipped_lists():
        for entry in prices.prices:
            suffix = "_above_200k_tokens" if entry.above_prompt_tokens else ""
            for model in {*entry.models} & {*table} if prices.vendor != "google" else ():  # the table has Vertex's under these names
                ours = (entry.prompt, entry.completion, entry.cached)
                names = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
                theirs = [table[model].get(name + suffix) for name in names]
                assert ours == tuple(None if rate is None else Decimal(str(rate)) * MILLION for rate in theirs), model
                compared += 1
    assert compared > 50


def test_the_reference_table_itself_can_be_the_price_file() -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference table is not here")
    book = make_pricing(PriceSettings(file=str(REFERENCE)), [], UPSTREAMS)
    assert book.cost(route("openai", "gpt-4o-audio-preview"), Usage(prompt_tokens=MILLION), None) == Decimal("2.5")
    assert book.cost(route("vllm", "gpt-4o"), Usage(prompt_tokens=1), None) is None


@pytest.mark.parametrize(
    "text",
    [
        "prices = 3",
        'prices = [{ models = ["m"], prompt = -1, completion = 2 }]',
        'prices = [{ models = ["m"], prompt = nan, completion = 2 }]',
        'prices = [{ models = ["m"], prompt = "one", completion = 2 }]',
        'prices = [{ models = ["m"], promt = 1, completion = 2 }]',
        "prices = [{ models = [], prompt = 1, completion = 2 }]",
        "prices = [",
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"prices\.toml"):
        pricing(tmp_path, text)


def test_a_file_that_is_not_there_and_a_negative_machine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        make_pricing(PriceSettings(file=str(tmp_path / "nowhere.toml")), [], [])
    with pytest.raises(ConfigError, match="machine_usd_per_hour"):
        make_pricing(PriceSettings(machine_usd_per_hour=Decimal(-1)), [], [])
