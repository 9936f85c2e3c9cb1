"""How a GGUF's byte-level BPE splits text before merging: `tokenizer.ggml.pre` names a preset, these are the patterns.

A preset's patterns apply one after the other, each to the parts that the one before it left. They are those of the models'
own tokenizer.json files; llama.cpp (src/llama-vocab.cpp) assigns the names.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.core.errors import LoadError, closest

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASED_LETTERS = (  # as DeepSeek LLM lists them: letters with case; escaped where an editor might normalize
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ\u1f5f-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌ\u1fd0-\u1fd3\u1fd6-\u1fdbῠ-Ῥῲ-ῴῶ-ῼ"
    "ℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_DEEPSEEK_LETTERS = rf"\s?[{_CASED_LETTERS}]+"
_DEEPSEEK_MARKS = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"
_CJK = "[一-龥ࠀ-一가-퟿]+"


class Preset(Struct, frozen=True):
    """How to split, and what the preset implies where the file does not say."""

    patterns: tuple[str, ...]
    whole_words: bool = False  # a word that is a token is taken as it is, whatever the merges say
    add_bos: bool = False


def preset(name: str) -> Preset:
    """The preset of that name. Raises LoadError with those that are known."""
    presets = _presets()
    if name in presets:
        return presets[name]
    near = closest(name, presets)
    raise LoadError(
        f"the GGUF vocabulary splits text by the preset {name!r}, which Penstock does not know",
        hint=(f"nearest: {near!r}; " if near else "") + f"known are {', '.join(sorted(presets))}",
    )


def _presets() -> dict[str, Preset]:
    gpt2, qwen2, llama3 = Preset((_GPT2,)), Preset((QWEN2,)), Preset((_LLAMA3,), whole_words=True, add_bos=True)
    digits = Preset((r"\p{N}", _GPT2))
    return {
        **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jina-es", "jina-de"), gpt2),
        **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan-dense"), qwen2),
        **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3"), llama3),
        **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), Preset((_LLAMA3,))),
        **dict.fromkeys(("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"), digits),
        "tekken": Preset((_TEKKEN,), whole_words=True, add_bos=True),
        "falcon": Preset((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
        "deepseek-llm": Preset((r"[\r\n]", _DEEPSEEK_LETTERS, _DEEPSEEK_MARKS, r"\s+$", _CJK, r"\p{N}+")),
        "deepseek-coder": Preset((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}")),
        "deepseek-v3": Preset((r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3)),
    }
