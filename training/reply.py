"""Let an exported folder answer, with transformers, many prompts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

Messages = list[dict[str, str]]


class Answerer:
    """A loaded model folder. Computes in float32; the weights are those of the folder."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.tokenizer.padding_side = "left"
        self.model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)

    def __call__(self, chats: Sequence[Messages], temperature: float = 0.0) -> list[str]:
        """One reply for each conversation, greedy at temperature 0."""
        inputs: Any = self.tokenizer.apply_chat_template(
            list(chats), add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        greedy = {"do_sample": False, "temperature": None, "top_p": None}
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0} if temperature else greedy
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=220, **sampling)
        prompt = inputs["input_ids"].shape[1]
        return [text.strip() for text in self.tokenizer.batch_decode(out[:, prompt:], skip_special_tokens=True)]
