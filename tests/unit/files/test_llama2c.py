"""llama2.c files: the header decides everything, so nothing is read unless it fits the file exactly."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from penstock.core.errors import LoadError
from penstock.engine.models import llama2c
from penstock.files import ModelFiles
from penstock.files.llama2c import Llama2cFile

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, SEQ_LEN = 8, 12, 2, 2, 1, 5, 6
SHARED = VOCAB * DIM + DIM + LAYERS * (2 * DIM + 2 * DIM * DIM + 2 * 4 * DIM + 3 * HIDDEN * DIM) + 2 * SEQ_LEN * 2


def written(folder: Path, header: tuple[int, ...], count: int) -> Path:
    path = folder / "m.bin"
    path.write_bytes(struct.pack(f"<{len(header)}i", *header) + torch.arange(count, dtype=torch.float32).numpy().tobytes())
    return path


def header(vocab: int = VOCAB, **changes: int) -> tuple[int, ...]:
    sizes = {"dim": DIM, "hidden": HIDDEN, "layers": LAYERS, "heads": HEADS, "kv_heads": KV_HEADS, "vocab": vocab, "seq_len": SEQ_LEN}
    return tuple((sizes | changes).values())


def test_a_shared_output_layer_is_the_embedding(tmp_path: Path) -> None:
    files = ModelFiles("m", "llama2c", written(tmp_path, header(), SHARED))
    config = llama2c.read_config(files)
    assert config.tie_word_embeddings
    assert (config.vocab_size, config.hidden_size, config.head_dim, config.max_position_embeddings) == (VOCAB, DIM, 4, SEQ_LEN)
    tensors = dict(llama2c.weights(files))
    assert "lm_head.weight" not in tensors
    assert sum(t.numel() for t in tensors.values()) == config.num_parameters


def test_a_negative_vocabulary_says_that_the_output_layer_comes_last(tmp_path: Path) -> None:
    files = ModelFiles("m", "llama2c", written(tmp_path, header(-VOCAB), SHARED + VOCAB * DIM))
    assert not llama2c.read_config(files).tie_word_embeddings
    head = dict(llama2c.weights(files))["lm_head.weight"]
    assert head.flatten().tolist() == list(range(SHARED, SHARED + VOCAB * DIM))


def test_queries_and_keys_turn_in_halves(tmp_path: Path) -> None:
    """Rows 0, 1, 2, 3 of a head are pairs (0, 1), (2, 3) in the file and (0, 2), (1, 3) in memory."""
    tensors = dict(llama2c.weights(ModelFiles("m", "llama2c", written(tmp_path, header(), SHARED))))
    start = VOCAB * DIM + LAYERS * DIM
    rows = (tensors["model.layers.0.self_attn.q_proj.weight"][:, 0] - start) / DIM
    assert rows.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert tensors["model.layers.0.self_attn.v_proj.weight"].flatten().diff().unique().tolist() == [1]


@pytest.mark.parametrize(
    ("given", "count", "message"),
    [
        (header(), SHARED - 1, "its header asks for"),
        (header(), SHARED + 1, "its header asks for"),
        (header(-VOCAB), SHARED, "its header asks for"),
        (header(layers=2**31 - 1), SHARED, "its header asks for"),
        (header(heads=3), SHARED, "impossible sizes"),
        (header(kv_heads=0), SHARED, "impossible sizes"),
        (header(dim=-8), SHARED, "impossible sizes"),
        ((0x616B3432, 1), 200, "of version 1"),
        ((8, 8), 0, "it has 8 bytes"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, given: tuple[int, ...], count: int, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        Llama2cFile(written(tmp_path, given, count))


def test_the_reference_model_opens(shared_data: Path) -> None:
    found = Llama2cFile(shared_data / "weights/stories260K/stories260K.bin").header
    assert (found.dim, found.num_layers, found.num_kv_heads, found.vocab_size, found.shared_classifier) == (64, 5, 4, 512, True)
