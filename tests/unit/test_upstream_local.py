"""The local upstream: a request becomes jobs, the engine's tokens become text. The engine is scripted, all else is real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import aclosing

import pytest
from serving import tab

from penstock.core.errors import ContextTooLong, EngineDied, InvalidRequest, Unsupported
from penstock.core.types import (
    Delta,
    EngineUse,
    Event,
    Finish,
    Message,
    ModelCard,
    Principal,
    PromptInfo,
    Request,
    Route,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
)
from penstock.engine.client import EngineClient
from penstock.engine.messages import (
    Abort,
    Alternative,
    Configure,
    EngineInfo,
    EngineStats,
    FromEngine,
    Job,
    MemoryPlan,
    Output,
    Ready,
    Scored,
    Step,
    Submit,
    ToEngine,
)
from penstock.text import ChatTemplate, Tokenizer
from penstock.text.tokenizer import Vocabulary
from penstock.trace import Tab
from penstock.upstream.local import LocalUpstream

EOS = 256
CONTEXT = 64
PLAN = MemoryPlan(
    device="cpu", dtype="float32", available_bytes=0, weights_bytes=0, activation_bytes=0, kv_bytes=0,
    block_size=16, num_blocks=64, max_model_len=CONTEXT, max_step_tokens=64, max_num_seqs=8,
)  # fmt: skip
INFO = EngineInfo(
    model="bytes", architecture="none", num_parameters=0, vocab_size=300, eos_token_ids=(EOS,), plan=PLAN,
    default_sampling=Sampling(temperature=0.5),
)  # fmt: skip
USE = EngineUse(prefill_s=2.0, decode_s=1.0, kv_s=3.0, kv_block_s=30.0)
CUT = EngineUse(prefill_s=1.0, decode_s=0.5, kv_s=1.5)
ROUTE = Route(upstream="here", model="bytes")


class ByteEncoder:
    """Each UTF-8 byte is a token. Remembers in which thread it worked."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        self.threads.append(threading.current_thread())
        return list(text.encode())


class ScriptedEngine:
    """A transport with no engine behind it: what it is sent is kept, what it answers the test says."""

    def __init__(self, play: Callable[[Job], list[Output]]) -> None:
        self.jobs: list[Job] = []
        self.aborted: list[str] = []
        self._play = play

    async def open(self, receive: Callable[[FromEngine], None], lost: Callable[[str], None]) -> None:
        self._receive, self.lost = receive, lost

    def send(self, message: ToEngine) -> None:
        match message:
            case Configure():
                self._receive(Ready(info=INFO))
            case Submit(jobs=jobs):
                self.jobs += jobs
                self._steps = asyncio.ensure_future(self._run(jobs))
            case Abort(ids=ids):
                self.aborted += ids
                self._receive(Step(outputs=tuple(Output(id=job_id, finish_reason="abort", use=CUT) for job_id in ids), stats=EngineStats()))

    async def close(self) -> None:
        pass

    async def _run(self, jobs: Sequence[Job]) -> None:
        for outputs in zip(*map(self._play, jobs), strict=True):
            left = tuple(output for output in outputs if output.id not in self.aborted)
            self._receive(Step(outputs=left, stats=EngineStats()))
            await asyncio.sleep(0.001)  # a step takes time, in which clients read


def says(*texts: str, reason: str = "stop", stop_token_id: int | None = EOS) -> Callable[[Job], list[Output]]:
    """An engine that gives `texts`, one an output, and ends with a stop token, if any."""

    def play(job: Job) -> list[Output]:
        outputs = [Output(id=job.id, token_ids=tuple(text.encode()), num_cached_tokens=1, queue_s=0.25) for text in texts]
        last = (stop_token_id,) if stop_token_id is not None else ()
        return [*outputs, Output(id=job.id, token_ids=last, finish_reason=reason, stop_token_id=stop_token_id, use=USE)]

    return play


class Bench:
    """A local upstream on a scripted engine."""

    def __init__(self, play: Callable[[Job], list[Output]], template: ChatTemplate | None = None) -> None:
        pieces = (*(bytes([byte]) for byte in range(256)), b"<eos>")
        self.encoder = ByteEncoder()
        self.engine = ScriptedEngine(play)
        tokenizer = Tokenizer(Vocabulary(pieces=pieces, special_ids=frozenset({EOS})), self.encoder)
        self.client = EngineClient("bytes", connect=lambda: self.engine)
        self.upstream = LocalUpstream(self.client, tokenizer, template, ModelCard(id="bytes", created=0))

    async def answer(self, request: Request, on: Tab | None = None) -> list[Event]:
        if not self.engine.jobs:
            await self.client.start()
        async with aclosing(self.upstream.stream(request, ROUTE, on or tab())) as events:
            return [event async for event in events]


def ask(prompt: str = "Hi", **fields: object) -> Request:
    sampling = {name: fields.pop(name) for name in tuple(fields) if name in Sampling.__struct_fields__}
    return Request(id="r", model="bytes", prompt=prompt, sampling=Sampling(**sampling), **fields)


def text_of(events: list[Event], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.index == index)


def last_delta(events: list[Event]) -> Delta:
    return [event for event in events if isinstance(event, Delta)][-1]


def finish_of(events: list[Event]) -> Finish:
    assert isinstance(events[-1], Finish)
    return events[-1]


async def test_the_engine_s_tokens_become_text() -> None:
    events = await Bench(says("Hel", "lo")).answer(ask())
    assert events[0] == PromptInfo(token_ids=(72, 105), text="Hi", num_cached_tokens=1)
    assert text_of(events) == "Hello"
    assert last_delta(events).finish_reason == "stop"
    assert last_delta(events).stop_reason is None  # the model's own end is no reason to name
    usage = finish_of(events).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (2, 6, 1)
    assert finish_of(events).timings.queue_s == 0.25


async def test_a_stop_string_across_outputs_ends_the_choice_and_the_job() -> None:
    bench = Bench(says("One", "\nTw", "o\nTh", "ree", reason="length", stop_token_id=None))
    events = await bench.answer(ask(stop=("\nThree", "o\nT")))
    assert text_of(events) == "One\nTw"
    assert (last_delta(events).finish_reason, last_delta(events).stop_reason) == ("stop", "o\nT")
    assert bench.engine.aborted == [bench.engine.jobs[0].id]
    assert finish_of(events).reason == "stop"
    assert finish_of(events).usage.completion_tokens == len("One\nTwo\nT")


async def test_a_stop_string_is_shown_when_asked_for() -> None:
    events = await Bench(says("a", "b", "c")).answer(ask(stop=("b",), include_stop_str_in_output=True))
    assert text_of(events) == "ab"


async def test_a_stop_string_does_not_count_before_min_tokens() -> None:
    events = await Bench(says("a", "b", "c", "b", "d")).answer(ask(stop=("b",), min_tokens=3))
    assert text_of(events) == "abc"


async def test_what_begins_like_a_stop_string_is_shown_after_all() -> None:
    events = await Bench(says("a<", "/b>", "c")).answer(ask(stop=("</s>",)))
    assert text_of(events) == "a</b>c"
    assert finish_of(events).usage.completion_tokens == 7


async def test_half_a_character_waits_with_its_token() -> None:
    def play(job: Job) -> list[Output]:
        first, second = "é".encode()
        return [Output(id=job.id, token_ids=(first,)), Output(id=job.id, token_ids=(second,), finish_reason="length")]

    events = await Bench(play).answer(ask())
    assert [event for event in events if isinstance(event, Delta)] == [
        Delta(text="é", token_ids=tuple("é".encode()), finish_reason="length")
    ]


async def test_a_character_that_the_prompt_began_is_finished() -> None:
    first, second = "é".encode()
    bench = Bench(lambda job: [Output(id=job.id, token_ids=(second,), finish_reason="length")])
    assert text_of(await bench.answer(Request(id="r", model="bytes", prompt_token_ids=(first,)))) == "é"


async def test_a_stop_token_s_text_is_hidden_and_its_id_told() -> None:
    bench = Bench(says("ab", stop_token_id=ord("!")))
    events = await bench.answer(ask(stop_token_ids=(ord("!"),)))
    assert text_of(events) == "ab"
    assert last_delta(events).stop_reason == ord("!")
    assert finish_of(events).usage.completion_tokens == 3
    shown = await bench.answer(ask(stop_token_ids=(ord("!"),), include_stop_str_in_output=True))
    assert text_of(shown) == "ab!"


async def test_special_tokens_are_shown_when_asked_for() -> None:
    def play(job: Job) -> list[Output]:
        return [Output(id=job.id, token_ids=(97, EOS, 98), finish_reason="length")]

    assert text_of(await Bench(play).answer(ask())) == "ab"
    assert text_of(await Bench(play).answer(ask(skip_special_tokens=False))) == "a<eos>b"


async def test_choices_share_the_prompt_and_differ_in_seed() -> None:
    bench = Bench(lambda job: says(job.id[-1])(job))
    events = await bench.answer(ask(n=3, seed=7, tenant="acme", priority=2))
    assert [text_of(events, index) for index in range(3)] == ["0", "1", "2"]
    assert [job.sampling.seed for job in bench.engine.jobs] == [7, 8, 9]
    assert {(job.prompt, job.salt, job.priority) for job in bench.engine.jobs} == {((72, 105), "acme", 2)}
    assert finish_of(events).usage.prompt_tokens == 2


async def test_the_largest_seed_stays_a_number_the_engine_can_hold() -> None:
    bench = Bench(says("a"))
    await bench.answer(ask(n=2, seed=2**63 - 1))
    assert [job.sampling.seed for job in bench.engine.jobs] == [2**63 - 1, 0]


async def test_one_choice_may_stop_while_another_goes_on() -> None:
    def play(job: Job) -> list[Output]:
        return says(*("ax" if job.id.endswith("0") else "bc"))(job)

    bench = Bench(play)
    events = await bench.answer(ask(n=2, stop=("x",)))
    assert (text_of(events, 0), text_of(events, 1)) == ("a", "bc")
    assert bench.engine.aborted == [bench.engine.jobs[0].id]


@pytest.mark.parametrize(("reasons", "whole"), [(("stop", "length"), "length"), (("stop", "stop"), "stop"), (("length", "abort"), "abort")])
async def test_a_request_was_cut_short_if_any_choice_was(reasons: tuple[str, str], whole: str) -> None:
    events = await Bench(lambda job: says("a", reason=reasons[int(job.id[-1])])(job)).answer(ask(n=2))
    assert finish_of(events).reason == whole


async def test_logprobs_carry_the_tokens_text() -> None:
    def play(job: Job) -> list[Output]:
        scores = (Scored(97, -0.25, (Alternative(97, -0.25), Alternative(98, -2.0))), Scored(EOS, -0.5, (Alternative(EOS, -0.5),)))
        return [
            Output(id=job.id, token_ids=(97,), scores=scores[:1]),
            Output(id=job.id, token_ids=(EOS,), scores=scores[1:], finish_reason="stop", stop_token_id=EOS),
        ]

    events = await Bench(play).answer(ask(logprobs=2))
    scored = [scored for event in events if isinstance(event, Delta) for scored in event.logprobs or ()]
    assert [(token.token, token.logprob) for token in scored] == [("a", -0.25), ("<eos>", -0.5)]
    assert [(other.token, other.logprob) for other in scored[0].top] == [("a", -0.25), ("b", -2.0)]


async def test_prompt_logprobs_come_with_the_prompt() -> None:
    def play(job: Job) -> list[Output]:
        scores = (None, Scored(105, -1.0))
        return [Output(id=job.id, token_ids=(97,), prompt_scores=scores, finish_reason="length")]

    bench = Bench(play)
    info = (await bench.answer(ask(prompt_logprobs=0)))[0]
    assert isinstance(info, PromptInfo)
    assert info.logprobs is not None
    assert [scored and (scored.token, scored.logprob) for scored in info.logprobs] == [None, ("i", -1.0)]


async def test_max_tokens_defaults_to_what_the_context_leaves() -> None:
    bench = Bench(says("a"))
    await bench.answer(ask("x" * 60))
    assert bench.engine.jobs[0].sampling.max_tokens == 4


async def test_what_can_never_fit_is_refused_with_both_numbers() -> None:
    bench = Bench(says("a"))
    with pytest.raises(ContextTooLong) as refused:
        await bench.answer(ask("x" * 60, max_tokens=5))
    assert "60" in refused.value.message
    assert "65" in refused.value.message
    assert str(CONTEXT) in refused.value.message
    assert "at most 4" in (refused.value.hint or "")
    assert refused.value.param == "max_tokens"
    assert bench.engine.jobs == []


@pytest.mark.parametrize("length", [CONTEXT, 10_000])
async def test_a_prompt_longer_than_the_context_is_refused(length: int) -> None:
    with pytest.raises(ContextTooLong, match=str(CONTEXT)):
        await Bench(says("a")).answer(ask("x" * length))


async def test_a_hopeless_prompt_is_refused_without_tokenizing() -> None:
    bench = Bench(says("a"))
    with pytest.raises(ContextTooLong):
        await bench.answer(ask("x" * 1_000_000))
    assert bench.encoder.threads == []


async def test_a_long_prompt_is_tokenized_beside_the_event_loop() -> None:
    bench = Bench(says("a"))
    await bench.answer(ask("x" * 20_000, truncate_prompt_tokens=8))
    await bench.answer(ask("x"))
    assert [thread is threading.main_thread() for thread in bench.encoder.threads] == [False, True]


async def test_truncation_keeps_the_end() -> None:
    bench = Bench(says("a"))
    events = await bench.answer(ask("abcdef", truncate_prompt_tokens=2))
    assert events[0] == PromptInfo(token_ids=(101, 102), text="ef", num_cached_tokens=1)


async def test_token_ids_are_taken_as_they_are() -> None:
    bench = Bench(says("a"))
    request = Request(id="r", model="bytes", prompt_token_ids=(72, 256), echo=True)
    info = (await bench.answer(request))[0]
    assert isinstance(info, PromptInfo)
    assert (info.token_ids, info.text) == ((72, 256), "H<eos>")


@pytest.mark.parametrize("token", [-1, 300])
async def test_a_token_id_outside_the_vocabulary_is_refused(token: int) -> None:
    bench = Bench(says("a"))
    with pytest.raises(InvalidRequest, match=str(token)):
        await bench.answer(Request(id="r", model="bytes", prompt_token_ids=(72, token)))
    with pytest.raises(InvalidRequest, match=str(token)):
        await bench.upstream.detokenize((token,))


async def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        await Bench(says("a")).answer(ask(""))


async def test_a_model_without_a_template_refuses_messages() -> None:
    request = Request(id="r", model="bytes", messages=(Message(role="user", content="Hi"),))
    with pytest.raises(InvalidRequest, match="no chat template") as refused:
        await Bench(says("a")).answer(request)
    assert refused.value.param == "messages"


async def test_bad_words_are_spelled_with_and_without_a_space() -> None:
    bench = Bench(says("a"))
    await bench.answer(ask(bad_words=("no", " no")))
    assert bench.engine.jobs[0].bad_token_ids == (tuple(b"no"), tuple(b" no"))


async def test_an_empty_bad_word_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="bad word"):
        await Bench(says("a")).answer(ask(bad_words=(" ",)))


async def test_two_requests_of_one_id_have_jobs_of_their_own() -> None:
    bench = Bench(says("a"))
    await bench.answer(ask())
    await bench.answer(ask())
    assert len({job.id for job in bench.engine.jobs}) == 2


async def test_a_client_that_leaves_aborts_its_jobs() -> None:
    bench = Bench(says("a", "b", "c"))
    await bench.client.start()
    async with aclosing(bench.upstream.stream(ask(n=2), ROUTE, tab())) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    assert sorted(bench.engine.aborted) == sorted(job.id for job in bench.engine.jobs)
    assert bench.client.num_in_flight == 0


async def test_nothing_is_sent_before_the_engine_s_first_output() -> None:
    """So that another route may be tried when the engine dies meanwhile."""
    bench = Bench(lambda job: [])
    await bench.client.start()
    async with aclosing(bench.upstream.stream(ask(), ROUTE, tab())) as events:
        pending = asyncio.create_task(anext(events))
        while not bench.engine.jobs:
            await asyncio.sleep(0)
        bench.engine.lost("gone")
        with pytest.raises(EngineDied):
            await pending


async def test_the_card_tells_the_context_and_the_model_s_defaults() -> None:
    bench = Bench(says("a"))
    await bench.client.start()
    (card,) = bench.upstream.models()
    assert (card.id, card.max_model_len, card.default_sampling.temperature) == ("bytes", CONTEXT, 0.5)


async def test_an_attempt_knows_what_it_used() -> None:
    noted = tab()
    events = await Bench(says("Hel", "lo")).answer(ask(n=2), noted)
    assert noted.usage == finish_of(events).usage == Usage(prompt_tokens=2, completion_tokens=12, cached_tokens=1)
    assert noted.use == EngineUse(prefill_s=4.0, decode_s=2.0, kv_s=6.0, kv_block_s=60.0)
    assert noted.queue_s == 0.25
    assert noted.first_s is not None


async def test_an_attempt_that_was_cut_knows_it_too() -> None:
    """By a stop string, or by a client that leaves: before the generator has closed, the engine has said what it was."""
    noted = tab()
    await Bench(says("a", "b", "c", "d")).answer(ask(stop=("b",)), noted)
    assert (noted.usage, noted.use) == (Usage(prompt_tokens=2, completion_tokens=2, cached_tokens=1), CUT)
    bench, noted = Bench(says("a", "b", "c", "d")), tab()
    await bench.client.start()
    async with aclosing(bench.upstream.stream(ask(), ROUTE, noted)) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    assert (noted.usage, noted.use) == (Usage(prompt_tokens=2, completion_tokens=1, cached_tokens=1), CUT)


async def test_an_attempt_that_was_refused_used_nothing() -> None:
    noted = tab()
    with pytest.raises(ContextTooLong):
        await Bench(says("a")).answer(ask("x" * 60, max_tokens=5), noted)
    assert noted.usage is noted.use is None


async def test_jobs_run_on_behalf_of_their_key() -> None:
    bench = Bench(says("a"))
    await bench.answer(ask(priority=2, principal=Principal(key_id="k1", priority=-5)))
    (job,) = bench.engine.jobs
    assert (job.account, job.priority) == ("k1", -3)


CALL = Message(role="assistant", content="", tool_calls=(ToolCall(id="1", name="f", arguments="{}"),))


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("tools", {"tools": (Tool(name="f"),)}),
        ("tool_choice", {"tool_choice": ToolChoice(mode="required")}),
        ("messages", {"prompt": None, "messages": (CALL,)}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("reasoning_effort", {"reasoning_effort": "low"}),
        ("input", {"prompt": None, "inputs": ("text",)}),
    ],
)
async def test_what_it_cannot_do_is_refused_by_name(param: str, fields: dict[str, object]) -> None:
    with pytest.raises(Unsupported) as refused:
        await Bench(says("a")).answer(ask(**fields))
    assert refused.value.param == param
