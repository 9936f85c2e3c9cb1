"""OpenTelemetry spans in the conventions for generative AI, sent over OTLP/HTTP. Needs the extra `otel`.

A request is one server span; below it are its stages and one client span for each attempt, with the `gen_ai.*` attributes
of https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and `penstock.*` for what those have no name for.
Spans are made when the request has ended and sent by a thread of their own: a collector that is down costs nobody time,
only the spans. What was said is never in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.config import TraceSettings
from penstock.core.errors import ConfigError, missing_extra
from penstock.core.types import Attempt, Request, Stage
from penstock.trace.events import Ended, TraceEvent

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

Value = str | int | float | bool | list[str]
Attributes = dict[str, Value]

EXPORT_S = 3.0  # the most that sending a batch may take, retries included; closing waits for one
QUEUED_SPANS = 16_384  # waiting to be sent; more are dropped
TRACES_PATH = "/v1/traces"
_OPERATIONS = {"chat": "chat", "text": "text_completion", "vectors": "embeddings"}


class Spans:
    """An observer of the trace. `close` sends what is left."""

    def __init__(self, settings: TraceSettings, exporter: SpanExporter | None = None) -> None:
        """Raises MissingExtra, ConfigError. `exporter` None: to `settings.otlp`."""
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise missing_extra("OpenTelemetry", "otel") from None
        self._api = trace
        self._provider = TracerProvider(resource=Resource.create({"service.name": settings.service_name}), shutdown_on_exit=False)
        exporter = exporter or OTLPSpanExporter(endpoint=endpoint(settings.otlp), timeout=EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUED_SPANS))
        self._tracer = self._provider.get_tracer("penstock")

    def __call__(self, event: TraceEvent) -> None:
        if isinstance(event, Ended):
            self._request(event)

    def close(self) -> None:
        """Send what is left. Blocks, about `EXPORT_S` at most."""
        self._provider.shutdown()

    def _request(self, event: Ended) -> None:
        started = _nanoseconds(event.arrived_at)
        span = self._tracer.start_span(
            f"{operation(event.request)} {event.request.model}",
            context=self._nothing(),
            kind=self._api.SpanKind.SERVER,
            attributes=request_attributes(event),
            start_time=started,
        )
        inside = self._api.set_span_in_context(span, self._nothing())
        for stage in event.stages:
            self._stage(stage, started, inside)
        for attempt in event.attempts:
            self._attempt(event.request, attempt, inside)
        if event.finish.failure is not None:
            span.set_status(self._api.StatusCode.ERROR, event.finish.failure.message)
        span.end(started + _nanoseconds(event.finish.timings.e2e_s or 0.0))

    def _stage(self, stage: Stage, started: int, inside: Context) -> None:
        attributes: Attributes = {"penstock.note": stage.note} if stage.note else {}
        span = self._tracer.start_span(stage.name, context=inside, attributes=attributes, start_time=started + _nanoseconds(stage.start_s))
        span.end(started + _nanoseconds(stage.end_s))

    def _attempt(self, request: Request, attempt: Attempt, inside: Context) -> None:
        started = _nanoseconds(attempt.started_at)
        span = self._tracer.start_span(
            f"{operation(request)} {attempt.route.model}",
            context=inside,
            kind=self._api.SpanKind.CLIENT,
            attributes=attempt_attributes(request, attempt),
            start_time=started,
        )
        if attempt.timings.ttft_s is not None:
            span.add_event("first token", timestamp=started + _nanoseconds(attempt.timings.ttft_s))
        if attempt.failure is not None:
            span.set_status(self._api.StatusCode.ERROR, attempt.failure)
        span.end(started + _nanoseconds(attempt.timings.e2e_s or 0.0))

    def _nothing(self) -> Context:
        """No parent: whatever the process itself traces, a request is its own root."""
        from opentelemetry.context import Context

        return Context()


def endpoint(otlp: str) -> str:
    """Where spans go: a collector's address gets the path that OTLP gives to traces. Raises ConfigError where it is none."""
    if not otlp.startswith(("http://", "https://")):
        raise ConfigError(f"trace.otlp is no address of a collector: {otlp!r}", hint="http://localhost:4318, for one")
    base = otlp.rstrip("/")
    return base if base.endswith(TRACES_PATH) else base + TRACES_PATH


def operation(request: Request) -> str:
    """`gen_ai.operation.name` of a request."""
    if request.inputs is not None:
        return _OPERATIONS["vectors"]
    return _OPERATIONS["chat" if request.messages is not None else "text"]


def request_attributes(event: Ended) -> Attributes:
    """Of the whole request, as the client sees it."""
    request, finish, principal = event.request, event.finish, event.request.principal
    return _known(
        {
            **_asked(request),
            "gen_ai.response.id": request.id,
            "gen_ai.response.model": event.decision.route.model if event.decision else None,
            "gen_ai.response.finish_reasons": [finish.reason],
            "gen_ai.usage.input_tokens": finish.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": finish.usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": finish.usage.cached_tokens,
            "gen_ai.response.time_to_first_chunk": finish.timings.ttft_s,
            "error.type": finish.failure.code if finish.failure else None,
            "penstock.key": principal.key_id or None,
            "penstock.key_name": principal.name or None,
            "penstock.upstream": event.decision.route.upstream if event.decision else None,
            "penstock.why": event.decision.why or None if event.decision else None,
            "penstock.cache": event.cache,
            "penstock.cost_usd": _money(finish.cost_usd),
            "penstock.queue_s": finish.timings.queue_s,
            "penstock.judgements": [f"{said.room} {said.rule}: {said.action}" for said in event.judgements] or None,
        }
    )


def attempt_attributes(request: Request, attempt: Attempt) -> Attributes:
    """Of one call of an upstream."""
    usage, use = attempt.usage, attempt.use
    return _known(
        {
            **_asked(request),
            "gen_ai.provider.name": attempt.route.upstream,
            "gen_ai.request.model": attempt.route.model,
            "gen_ai.response.finish_reasons": [attempt.reason],
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            "gen_ai.response.time_to_first_chunk": attempt.timings.ttft_s,
            "error.type": attempt.failure,
            "penstock.attempt": attempt.number,
            "penstock.purpose": attempt.purpose,
            "penstock.usage_estimated": usage.estimated,
            "penstock.cost_usd": _money(attempt.cost_usd),
            "penstock.saved_usd": _money(attempt.saved_usd),
            "penstock.queue_s": attempt.timings.queue_s,
            "penstock.prefill_s": use.prefill_s if use else None,
            "penstock.decode_s": use.decode_s if use else None,
            "penstock.kv_s": use.kv_s if use else None,
        }
    )


def _asked(request: Request) -> dict[str, Value | None]:
    sampling = request.sampling
    return {
        "gen_ai.operation.name": operation(request),
        "gen_ai.provider.name": "penstock",
        "gen_ai.request.model": request.model,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.embeddings.dimension.count": request.dimensions,
        "gen_ai.request.choice.count": request.n if request.n != 1 else None,
        "gen_ai.request.stream": request.streams,
    }


def _known(attributes: dict[str, Value | None]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _money(usd: object) -> str | None:
    """Exact, as text: a number would be a binary one."""
    return None if usd is None else f"{usd:f}"


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
