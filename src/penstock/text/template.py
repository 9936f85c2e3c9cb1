"""Chat templates: messages to the text that the model was trained on, in the dialect of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from penstock.core.errors import InvalidRequest, LoadError
from penstock.core.types import Message
from penstock.files import ModelFiles
from penstock.text.sandbox import Sandbox
from penstock.text.tokenizer import Tokenizer

_MIN_LIMIT = 1 << 20
_GROWTH = 4  # what a template adds around its messages, at most, as a multiple of them
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "  # as transformers: the space tells whether the template trims the message


class ChatTemplate:
    """A compiled template. `special_tokens` are its variables "bos_token" and so on."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Raises LoadError when `source` is not a template."""
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._sandbox = Sandbox()
        try:
            self._code = self._sandbox.compile(source)
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:  # Python's limits on nesting are the last three
            raise LoadError(f"the model's chat template cannot be read: {error}", hint="get the model's tokenizer files again") from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, object] = {},
    ) -> str:
        """The prompt for `messages`, special tokens written out: encode it with `add_special_tokens=False`.

        `add_generation_prompt` opens the assistant's turn; `continue_final_message` leaves the last message's turn open instead.
        `variables` are more of what this template knows ("enable_thinking"). Raises InvalidRequest with the template's own
        words when it refuses the messages.
        """
        if not messages:
            raise InvalidRequest("there are no messages", hint="send at least one", param="messages")
        if continue_final_message and add_generation_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt exclude each other",
                hint="set add_generation_prompt to false", param="continue_final_message",
            )  # fmt: skip
        turns = [_turn(message) for message in messages]
        if continue_final_message:
            turns[-1]["content"] += _MARK
        text = self._run(turns, variables, add_generation_prompt)
        return _cut_at_mark(text, messages[-1].content) if continue_final_message else text

    def _run(self, turns: list[dict[str, str]], variables: Mapping[str, object], add_generation_prompt: bool) -> str:
        limit = _MIN_LIMIT + _GROWTH * sum(len(turn["content"]) + len(turn.get("reasoning_content", "")) for turn in turns)
        sandbox = self._sandbox.restricted(limit)
        template = jinja2.Template.from_code(sandbox, self._code, sandbox.make_globals(None))
        given = {"tools": None, "documents": None, **self._special_tokens, **variables}
        pieces: list[str] = []
        try:
            for piece in template.generate(given, messages=turns, add_generation_prompt=add_generation_prompt):
                limit -= len(piece)
                if limit < 0:
                    raise jinja2.TemplateError("it writes far more than it was given")
                pieces.append(piece)
        except Exception as error:  # whatever the template's code runs into
            raise InvalidRequest(f"the model's chat template refuses these messages: {_reason(error)}", param="messages") from error
        return "".join(pieces)


def _turn(message: Message) -> dict[str, str]:
    turn = {"role": message.role, "content": message.content}
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning  # as the templates of reasoning models call it
    return turn if message.name is None else turn | {"name": message.name}


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _cut_at_mark(text: str, final: str) -> str:
    """`text` up to where the last message ends, without the white space there if the template trims messages."""
    at = text.rfind(_MARK.strip())
    if at < 0 or final.strip() not in text:
        raise InvalidRequest(
            "the model's chat template changes the final message, so it cannot be continued",
            hint="send it with continue_final_message false", param="continue_final_message",
        )  # fmt: skip
    return text[:at] if text.startswith(_MARK, at) else text[:at].rstrip()


def load_chat_template(files: ModelFiles, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The model's chat template, or None for a model that has none. Raises LoadError for one that cannot be read."""
    source = _gguf_source(files) if files.format == "gguf" else _folder_source(files)
    return None if source is None else ChatTemplate(source, tokenizer.special_tokens)


def _gguf_source(files: ModelFiles) -> str | None:
    from penstock.files.gguf import GGUFFile

    source = GGUFFile(files.path).metadata.get("tokenizer.chat_template")
    return source if isinstance(source, str) else None


def _folder_source(files: ModelFiles) -> str | None:
    if files.format != "safetensors":
        return None
    file = files.path / "chat_template.jinja"
    if file.is_file():
        return _read(file)
    return _default((files.json("tokenizer_config.json") or {}).get("chat_template"))


def _read(file: Any) -> str:
    try:
        return str(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"{file} cannot be read: {error}", hint="get the file again") from error


def _default(written: object) -> str | None:
    """A template is written as text or as a list of named ones, of which "default" is for plain chat."""
    if isinstance(written, list):
        named = {entry.get("name"): entry.get("template") for entry in written if isinstance(entry, dict)}
        written = named.get("default")
    return written if isinstance(written, str) else None
