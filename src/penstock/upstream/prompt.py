"""From a request to the tokens of its prompt, and how many may follow them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.errors import ContextTooLong, InvalidRequest
from penstock.core.types import PromptInfo, Request
from penstock.text import ChatTemplate, Tokenizer

_THREAD_CHARS = 16_384  # a longer text is tokenized in a thread, beside the event loop


class Prompter(Struct, frozen=True, kw_only=True):
    """Makes prompts for one model. `template` is None for a model that knows no chats."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    vocab_size: int
    max_model_len: int

    async def make(self, request: Request) -> PromptInfo:
        """The prompt's tokens and its text; the text of token ids is made only for `echo`.

        Raises `ContextTooLong` for a text that cannot fit however it is cut into tokens, `InvalidRequest` for a token id
        outside the vocabulary and for messages that the template refuses.
        """
        if request.prompt_token_ids is not None:
            check_token_ids(request.prompt_token_ids, self.vocab_size, param="prompt")
            info = PromptInfo(token_ids=request.prompt_token_ids)
        else:
            info = await self._from_text(request)
        return self._shown(request, self._truncated(request, info))

    def max_tokens(self, request: Request, num_prompt: int) -> int:
        """How many tokens may be generated: as asked, or all that the context leaves.

        Raises `ContextTooLong` for what can never fit, `InvalidRequest` for an empty prompt.
        """
        if num_prompt == 0:
            raise InvalidRequest("the prompt is empty", hint="send at least one token", param=_param(request))
        left = self.max_model_len - num_prompt
        wanted = request.sampling.max_tokens
        if left < 1:
            raise self._too_long(request, f"the prompt has {num_prompt} tokens")
        if wanted is not None and wanted > left:
            raise ContextTooLong(
                f"the prompt has {num_prompt} tokens and max_tokens is {wanted}: {num_prompt + wanted} together, "
                f"the model's context is {self.max_model_len}",
                hint=f"shorten the prompt or ask for at most {left} tokens",
                param="max_tokens",
            )
        return left if wanted is None else wanted

    async def _from_text(self, request: Request) -> PromptInfo:
        size = len(request.prompt or "") + sum(len(message.content) for message in request.messages or ())
        self._refuse_hopeless(request, size)
        if size > _THREAD_CHARS:
            return await asyncio.to_thread(self._encode, request)
        return self._encode(request)

    def _encode(self, request: Request) -> PromptInfo:
        text = self._render(request) if request.prompt is None else request.prompt
        return PromptInfo(token_ids=tuple(self.tokenizer.encode(text, add_special_tokens=request.add_special_tokens)), text=text)

    def _render(self, request: Request) -> str:
        if self.template is None:
            raise InvalidRequest(f"{request.model!r} has no chat template", hint="send a plain prompt to /v1/completions", param="messages")
        return self.template.render(
            request.messages or (),
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
            variables=request.chat_template_kwargs,
        )

    def _refuse_hopeless(self, request: Request, size: int) -> None:
        """Spare the work of tokenizing what cannot fit even if every token were as long as the longest."""
        least = size // self.tokenizer.max_token_bytes
        if request.truncate_prompt_tokens is None and least >= self.max_model_len:
            raise self._too_long(request, f"the prompt has at least {least} tokens")

    def _too_long(self, request: Request, what: str) -> ContextTooLong:
        return ContextTooLong(
            f"{what}, the model's context is {self.max_model_len} and must leave room for one more",
            hint=f"shorten the prompt to at most {self.max_model_len - 1} tokens",
            param=_param(request),
        )

    def _truncated(self, request: Request, info: PromptInfo) -> PromptInfo:
        keep = request.truncate_prompt_tokens
        if keep is None or len(info.token_ids) <= keep:
            return info
        token_ids = info.token_ids[-keep:]
        return PromptInfo(token_ids=token_ids, text=self.tokenizer.decode(token_ids, skip_special_tokens=False))

    def _shown(self, request: Request, info: PromptInfo) -> PromptInfo:
        if info.text is not None or not request.echo:
            return info
        return replace(info, text=self.tokenizer.decode(info.token_ids, skip_special_tokens=False))


def check_token_ids(token_ids: Sequence[int], vocab_size: int, param: str) -> None:
    """Raises `InvalidRequest` for the first id outside the vocabulary."""
    wrong = next((token for token in token_ids if not 0 <= token < vocab_size), None)
    if wrong is not None:
        raise InvalidRequest(f"token id {wrong} is outside the vocabulary", hint=f"ids go from 0 to {vocab_size - 1}", param=param)


def _param(request: Request) -> str:
    return "messages" if request.messages is not None else "prompt"
