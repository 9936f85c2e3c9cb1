"""Text to tokens and back: tokenizers, chat templates, incremental detokenizing, stop strings. No torch."""

from penstock.text.load import load_tokenizer
from penstock.text.stream import Piece, TextStream
from penstock.text.template import ChatTemplate, load_chat_template
from penstock.text.tokenizer import Detokenizer, Tokenizer

__all__ = ["ChatTemplate", "Detokenizer", "Piece", "TextStream", "Tokenizer", "load_chat_template", "load_tokenizer"]
