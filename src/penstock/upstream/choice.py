"""One choice of an answer: the engine's tokens of one sequence become pieces of text."""

from __future__ import annotations

from penstock.core.types import Delta, FinishReason, TokenLogprob, TopLogprob
from penstock.engine.messages import Job, Output, Scored
from penstock.text import TextStream, Tokenizer


class Choice:
    """Takes the outputs of one sequence and gives its deltas.

    Tokens and their logprobs wait for text to leave with: while the text stream holds back half a character or the
    beginning of a stop string, nothing is sent. `num_tokens` counts the tokens up to the end, a stop string's included.
    """

    def __init__(self, index: int, job: Job, tokenizer: Tokenizer) -> None:
        """Raises `InvalidRequest` for an empty stop string."""
        sampling = job.sampling
        self.finish_reason: FinishReason | None = None
        self.num_tokens = 0
        self._index = index
        self._sampling = sampling
        self._tokenizer = tokenizer
        self._token_ids: tuple[int, ...] = ()  # not sent yet
        self._scores: tuple[Scored, ...] = ()
        self._text = TextStream(
            tokenizer,
            stop=sampling.stop,
            include_stop=sampling.include_stop_str_in_output,
            skip_special_tokens=sampling.skip_special_tokens,
            min_tokens=sampling.min_tokens,
            prompt_tail=job.prompt,
        )

    def push(self, output: Output) -> Delta | None:
        """What the client gets of this output, if anything yet. Nothing may be pushed once `finish_reason` is set."""
        piece = self._text.push(self._visible(output), final=output.finish_reason is not None)
        if piece.stop_reason is not None:
            self.finish_reason = "stop"
            self._take(output, piece.num_tokens)
            return self._delta(piece.text, piece.stop_reason)
        self._take(output, len(output.token_ids))
        if output.finish_reason is not None:
            self.finish_reason = output.finish_reason
            asked = output.stop_token_id in self._sampling.stop_token_ids
            return self._delta(piece.text, output.stop_token_id if asked else None)
        return self._delta(piece.text, None) if piece.text else None

    def _visible(self, output: Output) -> tuple[int, ...]:
        """The tokens that have a text: a stop token has one only when it is asked for."""
        if output.stop_token_id is None or self._sampling.include_stop_str_in_output:
            return output.token_ids
        return output.token_ids[:-1]

    def _take(self, output: Output, num_tokens: int) -> None:
        self.num_tokens += num_tokens
        self._token_ids += output.token_ids[:num_tokens]
        self._scores += (output.scores or ())[:num_tokens]

    def _delta(self, text: str, stop_reason: int | str | None) -> Delta:
        """Everything that waited, with `text`."""
        wanted = self._sampling.logprobs is not None
        delta = Delta(
            index=self._index,
            text=text,
            token_ids=self._token_ids,
            logprobs=tuple(named(score, self._tokenizer) for score in self._scores) if wanted else None,
            finish_reason=self.finish_reason,
            stop_reason=stop_reason,
        )
        self._token_ids, self._scores = (), ()
        return delta


def named(score: Scored, tokenizer: Tokenizer) -> TokenLogprob:
    """A score with the tokens' display strings."""
    top = tuple(TopLogprob(other.token_id, tokenizer.token(other.token_id), other.logprob) for other in score.top)
    return TokenLogprob(score.token_id, tokenizer.token(score.token_id), score.logprob, top)
