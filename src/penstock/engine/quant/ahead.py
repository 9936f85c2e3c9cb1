"""From a folder of float weights to one in few bits: load, quantize, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from penstock.core.errors import MemoryPlanError, UserError
from penstock.engine.memory import available_bytes, size
from penstock.engine.models.assembly import Form
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.load import load_weights, read_config
from penstock.engine.models.safetensors import weights as stored_tensors
from penstock.engine.quant.calibration import Outcome, quantize_plainly, quantize_reading
from penstock.engine.quant.checkpoint import write_config, write_weights
from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.methods import CALIBRATED
from penstock.files import ModelFiles

Progress = Callable[[str, int, int], None]  # stage, done, in all


@torch.inference_mode()
def quantize_folder(
    files: ModelFiles, folder: Path, form: WeightFormat, method: str, windows: Sequence[Sequence[int]], progress: Progress
) -> list[str]:
    """Write weights and config.json of the model in `files`, quantized, to `folder`. The names of matrices that stayed in float.

    `windows` of token ids, all of one length, are what calibrated methods read. Raises MemoryPlanError, LoadError, UserError.
    """
    config = read_config(files)
    if windows and len(windows[0]) > config.max_position_embeddings:
        raise UserError(
            f"windows have {len(windows[0])} tokens, the model has positions for {config.max_position_embeddings}",
            hint="use a smaller --context",
        )
    outcome = _outcome(files, config, form, method, windows, progress)
    tensors = ((name, tensor) for name, tensor in stored_tensors(files) if isinstance(tensor, Tensor))
    floats = write_weights(folder, config, tensors, outcome)
    write_config(folder, files.json("config.json") or {}, form, method, floats)
    return floats


def _outcome(
    files: ModelFiles, config: ModelConfig, form: WeightFormat, method: str, windows: Sequence[Sequence[int]], progress: Progress
) -> Outcome:
    weights = load_weights(files, config, Form(_dtype(config), few_bits=False), progress)
    if method == "rtn":
        return quantize_plainly(config, weights, form, progress)
    return quantize_reading(config, weights, form, CALIBRATED[method], windows, progress)


def _dtype(config: ModelConfig) -> torch.dtype:
    """float32 where it fits beside its codes, else bfloat16. MemoryPlanError where that does not."""
    free = available_bytes(torch.device("cpu"))
    for dtype in (torch.float32, torch.bfloat16):
        needed = config.num_parameters * (dtype.itemsize + 1)
        if needed < 0.8 * free:
            return dtype
    raise MemoryPlanError(
        f"quantizing needs {size(needed)} for a model of {config.num_parameters:,} parameters, {size(free)} are free",
        hint="use a machine with more memory, or serve the model with --weights, which quantizes as it loads",
    )
