"""Prometheus metrics under vLLM's names, labels and buckets, so that dashboards made for vLLM fill in unchanged.

What differs from vLLM:
- Latencies and sizes of requests are observed for complete answers only (finished by "stop", "length" or "tool_calls"), on
  the server's clock: `request_prefill_time_seconds` is first token - arrival - queue, and so holds tokenizing too.
- `request_success_total` counts every end, with the `finished_reason`s "tool_calls", "error" and "content_filter" besides
  vLLM's. When nothing runs, its sum equals `penstock:requests_accepted_total`.
- `model_name` is the name that was asked for, an alias as such; which model answered, for whom and at what cost the
  metrics of `trace.shares` say.
- `NOT_EXPOSED` lists the names in vLLM's dashboards, past ones included, that mean nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from penstock.core.types import FinishReason, Timings
from penstock.trace.events import Accepted, Ended, Rerouted, Streamed, TraceEvent
from penstock.trace.judgements import Judgements
from penstock.trace.series import Distribution, Labels, family, single, split
from penstock.trace.shares import Shares

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

NOT_EXPOSED: Mapping[str, str] = MappingProxyType(
    {
        "vllm:num_requests_swapped": "preemption recomputes; no request is ever swapped out",
        "vllm:cpu_cache_usage_perc": "there is no KV cache in RAM beside the engine's own",
        "vllm:cpu_prefix_cache_hit_rate": "there is no KV cache in RAM beside the engine's own",
    }
)

_UTILIZATION_S = 5.0  # seconds over which an engine's utilization is taken, up to twice as many
_UNSERVED = "unknown"  # one label for all unserved names: a client must not be able to make series
_SIZES = tuple(mantissa * 10**exponent for exponent in range(6) for mantissa in (1, 2, 5))  # tokens
_STEP_SIZES = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)  # tokens
_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560)  # s
_GAPS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)  # s
_STAGES = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)  # s

_GAUGES = {
    "vllm:num_requests_running": "Sequences that hold KV blocks.",
    "vllm:num_requests_waiting": "Sequences that wait for their first step.",
    "vllm:kv_cache_usage_perc": "Share of KV blocks held by sequences; 1 is all.",
    "vllm:gpu_prefix_cache_hit_rate": "Share of looked-up prompt tokens found in the prefix cache since the engine started.",
    "penstock:engine_utilization": "Share of the last 5 to 10 seconds during which the engine had work; 1 is all.",
}
_RENAMED = {  # shown once more under the name that older dashboards have
    "vllm:gpu_cache_usage_perc": "vllm:kv_cache_usage_perc",
    "vllm:time_per_output_token_seconds": "vllm:inter_token_latency_seconds",
}
_ENDS = "vllm:request_success"
_COUNTERS = {
    "penstock:requests_accepted": "Requests taken in.",
    "penstock:requests_rerouted": "Times that a route failed before anything was sent and the next was tried.",
    "vllm:num_preemptions": "Sequences put back to be recomputed.",
    "vllm:prefix_cache_queries": "Prompt tokens looked up in the prefix cache.",
    "vllm:prefix_cache_hits": "Prompt tokens found in the prefix cache.",
    "vllm:prompt_tokens": "Prompt tokens computed or found cached.",
    "vllm:generation_tokens": "Tokens generated.",
    "penstock:engine_busy_seconds": "Time during which the engine had work.",
    "penstock:engine_forward_seconds": "Time in the model's forward; the rest of the busy time is overhead.",
}
_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "vllm:time_to_first_token_seconds": ("From arrival to the first token.", _TTFT),
    "vllm:inter_token_latency_seconds": ("From one token of a choice to the next.", _GAPS),
    "vllm:e2e_request_latency_seconds": ("From arrival to the end.", _STAGES),
    "vllm:request_queue_time_seconds": ("From submission to the first step.", _STAGES),
    "vllm:request_prefill_time_seconds": ("From the first step to the first token.", _STAGES),
    "vllm:request_decode_time_seconds": ("From the first token to the end.", _STAGES),
    "vllm:request_inference_time_seconds": ("From the first step to the end.", _STAGES),
    "vllm:request_prompt_tokens": ("Prompt tokens of a request.", _SIZES),
    "vllm:request_generation_tokens": ("Tokens generated for a request, all choices together.", _SIZES),
    "vllm:request_max_num_generation_tokens": ("Tokens of a request's longest choice.", _SIZES),
    "vllm:request_params_max_tokens": ("The max_tokens asked for.", _SIZES),
    "vllm:request_params_n": ("The number of choices asked for.", (1, 2, 5, 10, 20)),
    "vllm:iteration_tokens_total": ("Tokens computed in one step of the engine.", _STEP_SIZES),
}


class StepStats(Protocol):
    """What an engine says after a step: gauges as of now and counters since it started."""

    @property
    def num_running(self) -> int: ...
    @property
    def num_waiting(self) -> int: ...
    @property
    def kv_usage(self) -> float: ...
    @property
    def num_steps(self) -> int: ...
    @property
    def num_preemptions(self) -> int: ...
    @property
    def prefix_queries(self) -> int: ...
    @property
    def prefix_hits(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def generation_tokens(self) -> int: ...
    @property
    def step_tokens(self) -> int: ...
    @property
    def busy_s(self) -> float: ...
    @property
    def forward_s(self) -> float: ...


_STEP_COUNTERS: Mapping[str, Callable[[StepStats], float]] = MappingProxyType(
    {
        "vllm:num_preemptions": lambda stats: stats.num_preemptions,
        "vllm:prefix_cache_queries": lambda stats: stats.prefix_queries,
        "vllm:prefix_cache_hits": lambda stats: stats.prefix_hits,
        "vllm:prompt_tokens": lambda stats: stats.prompt_tokens,
        "vllm:generation_tokens": lambda stats: stats.generation_tokens,
        "penstock:engine_busy_seconds": lambda stats: stats.busy_s,
        "penstock:engine_forward_seconds": lambda stats: stats.forward_s,
    }
)


class Metrics(Collector):
    """The metrics of one server, in the registry given. An observer of the trace; `step` observes the engines.

    Every series of a served model exists from the start, at zero. All is counted on the event loop; only `render` may be
    called in another thread, since with many keys it takes a while.
    """

    def __init__(self, registry: CollectorRegistry, models: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._unserved = _Series(_UNSERVED, clock)
        self._served: dict[str, _Series] = {}
        self._shares = Shares()
        self._judgements = Judgements()
        self.serve(models)
        registry.register(self)

    def serve(self, models: Iterable[str]) -> None:
        """Count for these names, too: models of other upstreams, aliases. What is asked for by another name shares one series."""
        for model in models:
            if model not in self._served:
                self._served[model] = _Series(model, self._clock)

    def __call__(self, event: TraceEvent) -> None:
        """Observe one event of a request."""
        series = self._served.get(event.request.model, self._unserved)
        match event:
            case Streamed():
                series.streamed(event)
            case Accepted():
                series.counters["penstock:requests_accepted"] += 1
            case Rerouted():
                series.counters["penstock:requests_rerouted"] += 1
            case Ended():
                series.ended(event)
                self._shares.ended(event)
                self._judgements.count(event.judgements)

    def step(self, model: str, stats: StepStats) -> None:
        """Take in what the engine of `model` says after a step."""
        self._served[model].stepped(stats)

    def render(self) -> bytes:
        """All metrics in Prometheus text format, to be served as `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every metric, as Prometheus' registry wants them."""
        all_series = (*self._served.values(), self._unserved)
        for kind, names in (("gauge", _GAUGES), ("counter", _COUNTERS), ("histogram", _HISTOGRAMS)):
            for name in (*names, *(new for new, old in _RENAMED.items() if old in names)):
                text = names[_RENAMED.get(name, name)]
                yield family(name, text if isinstance(text, str) else text[0], kind, (s for of in all_series for s in of.samples(name)))
        ends = (s for of in all_series for s in split(f"{_ENDS}_total", of.labels, "finished_reason", of.ends))
        yield family(_ENDS, "Requests that have ended.", "counter", ends)
        yield from self._shares.collect()
        yield from self._judgements.collect()


class _Series:
    """The metrics of one model. Counters go on rising when its engine starts anew from zero."""

    def __init__(self, model: str, clock: Callable[[], float]) -> None:
        self.labels: Labels = {"model_name": model, "engine": "0"}
        self.gauges = dict.fromkeys(_GAUGES, 0.0)
        self.counters = dict.fromkeys(_COUNTERS, 0.0)
        self.histograms = {name: Distribution(buckets) for name, (_, buckets) in _HISTOGRAMS.items()}
        self.ends: dict[str, float] = dict.fromkeys(get_args(FinishReason), 0)
        self._utilization = Utilization(clock)
        self._steps = 0
        self._counted = dict.fromkeys(_STEP_COUNTERS, 0.0)

    def samples(self, name: str) -> Iterable[Sample]:
        """Of one metric, as of now."""
        known = _RENAMED.get(name, name)
        if known in self.histograms:
            return self.histograms[known].samples(name, self.labels)
        if known in self.counters:
            return single(f"{name}_total", self.labels, self.counters[known])
        return single(name, self.labels, self._utilization.now() if known == "penstock:engine_utilization" else self.gauges[known])

    def streamed(self, event: Streamed) -> None:
        self._observe("vllm:time_to_first_token_seconds", event.ttft_s)
        gaps = self.histograms["vllm:inter_token_latency_seconds"]
        for gap_s in event.gaps_s:
            gaps.observe(gap_s)

    def ended(self, event: Ended) -> None:
        self.ends[event.finish.reason] += 1
        if event.finish.reason in ("stop", "length", "tool_calls"):
            self._sizes(event)
            self._times(event.finish.timings)

    def _sizes(self, event: Ended) -> None:
        self._observe("vllm:request_prompt_tokens", event.finish.usage.prompt_tokens)
        self._observe("vllm:request_generation_tokens", event.finish.usage.completion_tokens)
        self._observe("vllm:request_max_num_generation_tokens", event.longest_choice)
        self._observe("vllm:request_params_max_tokens", event.request.sampling.max_tokens)
        self._observe("vllm:request_params_n", event.request.n)

    def _times(self, timings: Timings) -> None:
        self._observe("vllm:e2e_request_latency_seconds", timings.e2e_s)
        self._observe("vllm:request_queue_time_seconds", timings.queue_s)
        self._observe("vllm:request_prefill_time_seconds", _between(timings.queue_s, timings.ttft_s))
        self._observe("vllm:request_decode_time_seconds", _between(timings.ttft_s, timings.e2e_s))
        self._observe("vllm:request_inference_time_seconds", _between(timings.queue_s, timings.e2e_s))

    def _observe(self, name: str, value: float | None) -> None:
        if value is not None:
            self.histograms[name].observe(value)

    def stepped(self, stats: StepStats) -> None:
        self.gauges["vllm:num_requests_running"] = stats.num_running
        self.gauges["vllm:num_requests_waiting"] = stats.num_waiting
        self.gauges["vllm:kv_cache_usage_perc"] = stats.kv_usage
        self.gauges["vllm:gpu_prefix_cache_hit_rate"] = stats.prefix_hits / max(stats.prefix_queries, 1)
        if stats.num_steps < self._steps:  # the engine has started anew
            self._counted = dict.fromkeys(_STEP_COUNTERS, 0.0)
        if stats.num_steps != self._steps:
            self._observe("vllm:iteration_tokens_total", stats.step_tokens)
        self._steps = stats.num_steps
        for name, count in _STEP_COUNTERS.items():
            self.counters[name] += count(stats) - self._counted[name]
            self._counted[name] = count(stats)
        self._utilization.see(self.counters["penstock:engine_busy_seconds"])


class Utilization:
    """The share of the last seconds during which something was busy, from a counter of its busy seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._busy_s = 0.0
        self._marks = [(clock(), 0.0)] * 2  # when, and how much it was then: the newer one is looked at after its time

    def see(self, busy_s: float) -> None:
        """The counter now."""
        self._busy_s = busy_s
        self._turn()

    def now(self) -> float:
        """From 0 to 1."""
        self._turn()
        since_s, busy_s = self._marks[0]
        return min(1.0, (self._busy_s - busy_s) / max(self._clock() - since_s, 1e-9))

    def _turn(self) -> None:
        if (now := self._clock()) - self._marks[1][0] >= _UTILIZATION_S:
            self._marks = [self._marks[1], (now, self._busy_s)]


def _between(start_s: float | None, end_s: float | None) -> float | None:
    """Seconds from one stage to the next; None when either was not reached."""
    return None if start_s is None or end_s is None else max(0.0, end_s - start_s)
