"""`from penstock import Engine`: the built-in model in this process, the way a notebook uses it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from penstock import Engine, EngineSpec, Message, Sampling
from penstock.core.errors import ContextTooLong, InvalidRequest, LoadError, UserError

GREEDY = Sampling(temperature=0, max_tokens=32)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(spec=EngineSpec(max_model_len=512, max_num_seqs=4, threads=1), progress=False) as engine:
        yield engine


def test_it_answers_a_question(engine: Engine) -> None:
    (completion,) = engine.generate("What is 17 + 25?", GREEDY)
    assert completion.text
    assert completion.finish_reason == "stop"
    assert completion.usage.completion_tokens == len(completion.token_ids)


def test_many_prompts_are_answered_in_their_order(engine: Engine) -> None:
    prompts = [f"What is {number} + 1?" for number in range(20)]
    together = [completion.text for completion in engine.generate(prompts, GREEDY)]
    alone = [engine.generate(prompt, GREEDY)[0].text for prompt in prompts[:3]]
    assert len(together) == 20
    assert together[:3] == alone


def test_a_stream_is_the_same_text_in_pieces(engine: Engine) -> None:
    pieces = list(engine.stream("Hello!", GREEDY))
    assert len(pieces) > 1
    assert "".join(pieces) == engine.generate("Hello!", GREEDY)[0].text


def test_a_stream_that_is_left_early_frees_its_blocks(engine: Engine) -> None:
    stream = engine.stream("Tell me a story.", Sampling(max_tokens=400, ignore_eos=True))
    next(stream)
    stream.close()
    assert engine.generate("Hello!", GREEDY)[0].text  # the next request finds room


def test_a_chat_takes_messages_and_dicts(engine: Engine) -> None:
    said = engine.chat([Message(role="user", content="Hello!")], GREEDY)
    assert said.text == engine.chat([{"role": "user", "content": "Hello!"}], GREEDY).text
    with pytest.raises(InvalidRequest, match="messages: Invalid enum value 'robot'"):
        engine.chat([{"role": "robot", "content": "Hello!"}])


def test_raw_continues_the_text_as_it_is(engine: Engine) -> None:
    assert engine.generate("Hello!", GREEDY, raw=True)[0].usage.prompt_tokens < engine.generate("Hello!", GREEDY)[0].usage.prompt_tokens


def test_logprobs_come_when_asked_for(engine: Engine) -> None:
    (completion,) = engine.generate("Hello!", Sampling(temperature=0, max_tokens=3, logprobs=2))
    assert completion.logprobs is not None
    assert [entry.token_id for entry in completion.logprobs] == list(completion.token_ids)
    assert all(len(entry.top) == 2 and entry.logprob <= 0 for entry in completion.logprobs)


@pytest.mark.parametrize(
    ("sampling", "says"),
    [
        (Sampling(temperature=-1), "temperature"),
        (Sampling(top_p=0), "top_p"),
        (Sampling(max_tokens="many"), "max_tokens"),  # type: ignore[arg-type]
    ],
)
def test_sampling_is_held_to_the_bounds_of_the_server(engine: Engine, sampling: Sampling, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        engine.generate("Hello!", sampling)


def test_a_prompt_that_can_never_fit_is_refused_with_both_numbers(engine: Engine) -> None:
    with pytest.raises(ContextTooLong, match="512"):
        engine.generate("word " * 2000, GREEDY)


def test_threads_share_the_engine(engine: Engine) -> None:
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(engine.generate("Hello!", GREEDY)[0].text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 4
    assert len(set(texts)) == 1


async def test_it_works_where_a_loop_is_running(engine: Engine) -> None:
    assert engine.generate("Hello!", GREEDY)[0].text


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=float("nan")),
        Sampling(min_p=float("nan")),
        Sampling(logit_bias={5: float("inf")}),
        Sampling(allowed_token_ids=()),
        Sampling(stop=("",)),
    ],
)
def test_what_no_token_could_be_drawn_from_is_refused(engine: Engine, sampling: Sampling) -> None:
    with pytest.raises(InvalidRequest):
        engine.generate("Hello", sampling)


def test_a_closed_engine_says_so_and_may_be_closed_again() -> None:
    engine = Engine(spec=EngineSpec(max_model_len=256, max_num_seqs=1, threads=1), progress=False)
    engine.close()
    engine.close()
    with pytest.raises(UserError, match="closed"):
        engine.generate("Hello")
    with pytest.raises(UserError, match="closed"):
        list(engine.stream("Hello"))


def test_a_model_that_is_not_there_is_a_load_error() -> None:
    with pytest.raises(LoadError, match="penstock-mini"):
        Engine("penstock-mni", progress=False)
