"""Prometheus metrics under vLLM's names, labels and buckets, so that dashboards made for vLLM fill in unchanged.

What differs from vLLM:
- Latencies and sizes of requests are observed for complete answers only (finished by "stop" or "length"), on the
  server's clock: `request_prefill_time_seconds` is first token - arrival - queue, and so holds tokenizing too.
- `request_success_total` counts every end, with the `finished_reason`s "error" and "content_filter" besides vLLM's. When
  nothing runs, its sum equals `penstock:requests_accepted_total`.
- `NOT_EXPOSED` lists the names in vLLM's dashboards, past ones included, that mean nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock.core.types import FinishReason, Timings
from penstock.trace.events import Accepted, Ended, Rerouted, Streamed, TraceEvent

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

NOT_EXPOSED: Mapping[str, str] = MappingProxyType(
    {
        "vllm:num_requests_swapped": "preemption recomputes; no request is ever swapped out",
        "vllm:cpu_cache_usage_perc": "there is no KV cache in RAM beside the engine's own",
        "vllm:cpu_prefix_cache_hit_rate": "there is no KV cache in RAM beside the engine's own",
    }
)

_LABELS = ("model_name", "engine")
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
}
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


class Metrics:
    """The metrics of one server, in the registry given. An observer of the trace; `step` observes the engines.

    Every series of a served model exists from the start, at zero.
    """

    def __init__(self, registry: CollectorRegistry, models: Iterable[str]) -> None:
        self._registry = registry
        families = _Families(registry)
        self._unserved = _Series(families, _UNSERVED)
        self._served = {model: _Series(families, model) for model in models}

    def __call__(self, event: TraceEvent) -> None:
        """Observe one event of a request."""
        series = self._served.get(event.request.model, self._unserved)
        match event:
            case Streamed():
                series.streamed(event)
            case Accepted():
                series.counters["penstock:requests_accepted"].inc()
            case Rerouted():
                series.counters["penstock:requests_rerouted"].inc()
            case Ended():
                series.ended(event)

    def step(self, model: str, stats: StepStats) -> None:
        """Take in what the engine of `model` says after a step."""
        self._served[model].stepped(stats)

    def render(self) -> bytes:
        """All metrics in Prometheus text format, to be served as `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Families:
    """Every metric, without labels yet."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.gauges = {name: Gauge(name, text, _LABELS, registry=registry) for name, text in _GAUGES.items()}
        self.counters = {name: Counter(name, text, _LABELS, registry=registry) for name, text in _COUNTERS.items()}
        self.histograms = {
            name: Histogram(name, text, _LABELS, buckets=buckets, registry=registry) for name, (text, buckets) in _HISTOGRAMS.items()
        }
        self.ends = Counter("vllm:request_success", "Requests that have ended.", (*_LABELS, "finished_reason"), registry=registry)
        registry.register(_Renamed("vllm:gpu_cache_usage_perc", self.gauges["vllm:kv_cache_usage_perc"]))
        registry.register(_Renamed("vllm:time_per_output_token_seconds", self.histograms["vllm:inter_token_latency_seconds"]))


class _Series:
    """The metrics of one model. Counters go on rising when its engine starts anew from zero."""

    def __init__(self, families: _Families, model: str) -> None:
        labels = (model, "0")
        self.gauges = {name: family.labels(*labels) for name, family in families.gauges.items()}
        self.counters = {name: family.labels(*labels) for name, family in families.counters.items()}
        self.histograms = {name: family.labels(*labels) for name, family in families.histograms.items()}
        self.ends = {reason: families.ends.labels(*labels, reason) for reason in get_args(FinishReason)}
        self._steps = 0
        self._counted = dict.fromkeys(_STEP_COUNTERS, 0.0)

    def streamed(self, event: Streamed) -> None:
        self._observe("vllm:time_to_first_token_seconds", event.ttft_s)
        for gap_s in event.gaps_s:
            self._observe("vllm:inter_token_latency_seconds", gap_s)

    def ended(self, event: Ended) -> None:
        self.ends[event.finish.reason].inc()
        if event.finish.reason in ("stop", "length"):
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
        self.gauges["vllm:num_requests_running"].set(stats.num_running)
        self.gauges["vllm:num_requests_waiting"].set(stats.num_waiting)
        self.gauges["vllm:kv_cache_usage_perc"].set(stats.kv_usage)
        self.gauges["vllm:gpu_prefix_cache_hit_rate"].set(stats.prefix_hits / max(stats.prefix_queries, 1))
        if stats.num_steps < self._steps:  # the engine has started anew
            self._counted = dict.fromkeys(_STEP_COUNTERS, 0.0)
        if stats.num_steps != self._steps:
            self._observe("vllm:iteration_tokens_total", stats.step_tokens)
        self._steps = stats.num_steps
        for name, count in _STEP_COUNTERS.items():
            self.counters[name].inc(count(stats) - self._counted[name])
            self._counted[name] = count(stats)


class _Renamed(Collector):
    """A metric once more, under the name that it had in older dashboards."""

    def __init__(self, name: str, family: Gauge | Histogram) -> None:
        self._name = name
        self._family = family

    def collect(self) -> Iterator[Metric]:
        for metric in self._family.collect():
            renamed = Metric(self._name, metric.documentation, metric.type)
            renamed.samples = [sample._replace(name=sample.name.replace(metric.name, self._name, 1)) for sample in metric.samples]
            yield renamed


def _between(start_s: float | None, end_s: float | None) -> float | None:
    """Seconds from one stage to the next; None when either was not reached."""
    return None if start_s is None or end_s is None else max(0.0, end_s - start_s)
