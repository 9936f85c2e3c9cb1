"""A whole model on the native kernels: every build of them, any number of threads, weights and KV in few bits.

That each architecture equals transformers is in `test_transformers`; here the reference decoder is what is compared with.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock.engine.holding import quantized
from penstock.engine.kernels.cpu.kv import NUMBERS
from penstock.engine.kernels.cpu.library import Pool, libraries, load_library
from penstock.engine.kernels.cpu.packed import Packed
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.models.assembly import Form
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.load import load_weights, read_config
from penstock.engine.models.native import NativeDecoder
from penstock.engine.models.size import Target
from penstock.engine.quant.formats import WeightFormat, parse_format
from tests.golden.architectures import CASES, Case, random_model
from tests.golden.pages import Pages, files_of, load_native

pytestmark = pytest.mark.skipif(not libraries(), reason="penstock was installed without a C++ compiler")

WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "num_attention_heads": 4}
PROMPTS = [torch.randint(3, 97, (length,), generator=torch.Generator().manual_seed(length)).tolist() for length in (40, 23, 1)]


@pytest.fixture(scope="module", params=["qwen2", "gemma2", "phi3-partial-rotary"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = next(case for case in CASES if case.name == request.param)
    folder = tmp_path_factory.mktemp(case.name)
    random_model(Case(case.name, case.model_type, {**case.options, **WIDE}), folder)
    return folder


def logits(decoder: Decoder | NativeDecoder) -> Tensor:
    """Of all positions: prompts in two chunks, side by side."""
    pages = Pages(decoder, num_seqs=len(PROMPTS), max_len=64)
    first = pages.step({seq: prompt[:17] for seq, prompt in enumerate(PROMPTS)})
    second = pages.step({seq: prompt[17:] for seq, prompt in enumerate(PROMPTS) if prompt[17:]})
    return torch.cat([*first.values(), *second.values()])


def reference(folder: Path, target: WeightFormat | None = None) -> Decoder:
    """The oracle; with a format, its weights quantized as the engine does, and multiplied as floats."""
    files = files_of(folder)
    config = read_config(files)
    form = Form(torch.float32, quantize=None if target is None else lambda name, weight: quantized(name, weight, Target(target)))
    weights = load_weights(files, config, form, lambda stage, done, total: None)
    return Decoder(config, weights, ReferenceKernels(), config.max_position_embeddings)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("library", libraries())
def test_every_build_with_any_number_of_threads(folder: Path, library: str, threads: int) -> None:
    decoder = load_native(folder, library=library, threads=threads)
    torch.testing.assert_close(logits(decoder), logits(reference(folder)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("library", libraries())
@pytest.mark.parametrize("name", ["int8-channel", "int4", "int4-g64-asym"])
def test_weights_in_few_bits_are_multiplied_as_they_are(folder: Path, library: str, name: str) -> None:
    """What is left is the rounding of activations to int8, which a random model makes much of; the weights' own is more."""
    files, native, target = files_of(folder), load_library(library), parse_format(name)
    config = read_config(files)
    form = Form(None, quantize=lambda n, w: quantized(n, w, Target(target)), finish=lambda n, w: Packed(native, w))
    weights = load_weights(files, config, form, lambda stage, done, total: None)
    decoder = NativeDecoder(config, weights, Pool(native, 2), served_len=64, max_tokens=128)
    expected = logits(reference(folder, target))
    assert error(logits(decoder), expected) < 0.07
    assert error(logits(reference(folder)), expected) > (0.01 if target.bits == 8 else 0.15)  # or nothing was quantized


def test_floats_of_another_type_than_the_checkpoints(folder: Path) -> None:
    """Matrices are; biases, which the kernels add as float32, are not."""
    files, native = files_of(folder), load_library(libraries()[0])
    form = Form(torch.bfloat16, finish=lambda name, weight: Packed(native, weight))
    weights = load_weights(files, config := read_config(files), form, lambda stage, done, total: None)
    decoder = NativeDecoder(config, weights, Pool(native, 2), served_len=64, max_tokens=128)
    assert error(logits(decoder), logits(reference(folder))) < 0.03


@pytest.mark.parametrize(("kv_format", "bound"), [("fp32", 1e-5), ("bf16", 0.01), ("int8", 0.03), ("int4", 0.4)])
def test_kv_in_few_bits(folder: Path, kv_format: str, bound: float) -> None:
    assert error(logits(load_native(folder, kv_format=kv_format)), logits(reference(folder))) < bound


def test_kv_formats_take_less_and_less(folder: Path) -> None:
    sizes = [load_native(folder, kv_format=name).allocate_kv(4, 16).keys[0].nbytes for name in NUMBERS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.9 * sizes[1]


def error(logits: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, beside that of the logits."""
    return float((logits - expected).norm() / expected.norm())
