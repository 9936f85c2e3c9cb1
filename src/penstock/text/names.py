"""What a model's folder says about its special tokens: tokenizer_config.json, special_tokens_map.json, generation_config.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from penstock.core.errors import LoadError
from penstock.files import ModelFiles

# End-of-turn tokens of chat formats, for models that name only one end of text and do not say how a turn ends.
CHAT_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>", "<end_of_turn>")

TokenId = Callable[[str], int | None]


class AddedToken(Struct, frozen=True):
    """A token that is matched in the text before it is split: `lstrip` and `rstrip` take the white space beside it too."""

    content: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


def special_token_names(files: ModelFiles) -> dict[str, str]:
    """The special tokens that the folder names: "bos_token": "<s>" and so on."""
    settings = {**(files.json("special_tokens_map.json") or {}), **(files.json("tokenizer_config.json") or {})}
    named = {key: _content(value) for key, value in settings.items() if key.endswith("_token") and not key.startswith("add_")}
    return {key: content for key, content in named.items() if content is not None}


def _content(value: object) -> str | None:
    """A token is written as its text or as an object with `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def added_tokens(files: ModelFiles) -> dict[int, AddedToken]:
    """Tokens beyond the vocabulary file, by id, in ascending order. Raises LoadError for an entry that makes no sense."""
    settings = files.json("tokenizer_config.json") or {}
    tokens: dict[int, AddedToken] = {}
    for content, token_id in (files.json("added_tokens.json") or {}).items():
        tokens[_token_id(token_id)] = AddedToken(content)
    listed = settings.get("added_tokens_decoder")
    for token_id, entry in listed.items() if isinstance(listed, dict) else ():
        tokens[_token_id(token_id)] = _added_token(entry)
    return dict(sorted(tokens.items()))


def _token_id(value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise LoadError(f"an added token has the id {value!r}, which is not a number", hint="get tokenizer_config.json again") from error


def _added_token(entry: object) -> AddedToken:
    content = _content(entry)
    if not isinstance(entry, dict) or content is None:
        raise LoadError(f"an added token is {entry!r}, without content", hint="get tokenizer_config.json again")
    flags = {name: bool(entry.get(name)) for name in ("special", "lstrip", "rstrip", "single_word", "normalized")}
    return AddedToken(content, **flags)


def configured_ids(files: ModelFiles, key: str) -> tuple[int, ...]:
    """`key` ("eos_token_id") in generation_config.json or, failing that, config.json; none, one or a list."""
    for name in ("generation_config.json", "config.json"):
        value = (files.json(name) or {}).get(key)
        if value is not None:
            return tuple(id for id in (value if isinstance(value, list) else [value]) if isinstance(id, int) and id >= 0)
    return ()


def end_ids(named: int | None, configured: Iterable[int], chat_end: TokenId) -> tuple[int, ...]:
    """Every token that ends a generation: the tokenizer's own and those of the generation config.

    A model that configures none gets the end-of-turn tokens of the common chat formats, where its vocabulary has them.
    """
    ends = list(configured) or [id for id in map(chat_end, CHAT_ENDS) if id is not None]
    return tuple(dict.fromkeys([named, *ends] if named is not None else ends))


def flag(settings: Mapping[str, object], key: str) -> bool | None:
    """A setting that is true, false or not written."""
    value = settings.get(key)
    return value if isinstance(value, bool) else None
