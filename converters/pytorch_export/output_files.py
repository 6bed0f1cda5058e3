"""Writing and loading PyTorch exports: a folder with model.py and model.safetensors, or a .pt2 of torch.export."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from converters.common.names import valid_utf8
from converters.common.net_with_weights import NetWithWeights
from converters.common.preprocessing import Preprocessing
from converters.pytorch_export.model_source import model_source
from converters.pytorch_export.trace_to_source import python_literal
from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.net.lowering_checks import computed_outputs, net_inputs
from prototxt_gen.runtime.torch_net import TorchNet

Array = np.ndarray[Any, Any]
PROTOTXT_KEY, EPS_KEY, OUTPUTS_KEY = "caffe.prototxt", "caffe.eps", "caffe.outputs"
"""Metadata keys: the net as prototxt; the eps of batch normalisation layers, by layer name, as JSON; the names of the
outputs, in the order in which the module returns them, as JSON."""


def write_folder(model: NetWithWeights, net: TorchNet, folder: Path) -> list[str]:
    """Write model.py and model.safetensors into a new folder; return remarks on sizes that are fixed in model.py."""
    from safetensors.torch import save_file

    source = model_source(model, net, preprocessing_constants(model.preprocessing))
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source.text, encoding="utf-8")
    save_file(source.state, folder / "model.safetensors", weights_metadata(model, net))
    return source.remarks


def weights_metadata(model: NetWithWeights, net: TorchNet) -> dict[str, str]:
    """Return the metadata of the weights: prototxt and eps, which the way back to Caffe needs, and preprocessing."""
    from prototxt_gen.net.render import net_text

    eps = ((step.layer.name, getattr(step.module, "eps", None)) for step in net.lowered_layers)
    eps_of_layers = {name: value for name, value in eps if value is not None}
    return {
        "format": "pt",
        PROTOTXT_KEY: valid_utf8(net_text(model.net)),
        EPS_KEY: json.dumps(eps_of_layers),
        OUTPUTS_KEY: json.dumps([valid_utf8(value.blob) for value in net.outputs]),
        **model.preprocessing.metadata(),
    }


def preprocessing_constants(preprocessing: Preprocessing) -> str:
    """Return the preprocessing as constants for the head of model.py; empty if nothing is known."""
    if not preprocessing:
        return ""
    lines = ["# The input is (pixel - MEAN) * SCALE, pixels from 0 to 255."]
    if preprocessing.mean_image is not None:
        lines[0] = "# The input is (pixel - mean image) * SCALE; the image is in model.safetensors' metadata."
    else:
        lines.append(f"MEAN = {python_literal(tuple(preprocessing.mean) or (0.0,))}")
    lines.append(f"SCALE = {preprocessing.scale!r}")
    if preprocessing.channel_order:
        lines.append(f'CHANNEL_ORDER = "{preprocessing.channel_order}"')
    return "\n".join(lines) + "\n"


def write_pt2(model: NetWithWeights, net: TorchNet, path: Path) -> list[str]:
    """Write a .pt2 of torch.export, with a dynamic batch if possible; return remarks on what is fixed.

    Raises UnsupportedError if torch.export refuses the net.
    """
    examples = tuple(torch.zeros(model.analysis.shapes[value]) for value in net.inputs)
    batch = examples[0].shape[0] if examples and examples[0].dim() else 0
    remarks: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tensors that layers keep from run to run, such as prior boxes
        exported = _export_with_dynamic_batch(net, examples, batch) if batch else None
        if exported is None:
            remarks.append("the batch is fixed: torch.export finds that the net depends on it")
            exported = _export_with_fixed_batch(net, examples)
    extra = {key: text for key, text in weights_metadata(model, net).items() if key != "format"}
    with path.open("wb") as file:  # given a name that does not end in .pt2, PyTorch prints warnings
        torch.export.save(exported, file, extra_files=extra)
    return remarks


def _export_with_dynamic_batch(net: TorchNet, examples: tuple[torch.Tensor, ...], batch: int) -> Any:
    """Export with two images, as torch.export treats a size of 1 as fixed; None if the net depends on the batch."""
    two_images = tuple(torch.zeros(2, *e.shape[1:]) if e.dim() and e.shape[0] == batch else e for e in examples)
    dynamic_batch = torch.export.Dim("N", min=1)
    axes = tuple({0: dynamic_batch} if e.dim() and e.shape[0] == batch else None for e in examples)
    try:
        return torch.export.export(net, two_images, dynamic_shapes={"inputs": axes})
    except Exception:  # torch.export raises many classes of errors; the caller then exports with a fixed batch
        return None


def _export_with_fixed_batch(net: TorchNet, examples: tuple[torch.Tensor, ...]) -> Any:
    try:
        return torch.export.export(net, examples)
    except Exception as error:  # torch.export raises many classes of errors
        data_sized = [step.layer for step in net.lowered_layers if step.layer_type.sized_by_data]
        if data_sized:
            names = ", ".join(f"{layer.name!r} ({layer.type})" for layer in data_sized)
            why = f"the size of what layer {names} gives out depends on the data"
        else:
            why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UnsupportedError(
            f"{net.net.source or net.net.name}: torch.export refuses it: {why}; the folder format supports it"
        ) from None


def load_folder(folder: Path) -> nn.Module:
    """Import the model.py of an exported folder and return its module with weights, in eval mode.

    This runs model.py. Raises PrototxtGenError if there is none.
    """
    spec = importlib.util.spec_from_file_location("converted_model", folder / "model.py")
    if spec is None or spec.loader is None:
        raise PrototxtGenError(f"{folder}: there is no model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: nn.Module = module.load(folder)
    return loaded


def load_pt2(path: Path) -> nn.Module:
    """Return the module of a .pt2 file."""
    with path.open("rb") as file:
        module: nn.Module = torch.export.load(file).module()
    return module


def run_module(model: NetWithWeights, module: nn.Module, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run an exported module on inputs by blob name; return the net's outputs by blob name."""
    tensors = [torch.from_numpy(np.asarray(inputs[value.blob], order="C")) for value in net_inputs(model.net)]
    with torch.no_grad():
        result = module(*tensors)
    tops = result if isinstance(result, (tuple, list)) else (result,)
    return {value.blob: top.detach().numpy() for value, top in zip(computed_outputs(model.net), tops, strict=True)}


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a .safetensors file. Raises PrototxtGenError if it is not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise PrototxtGenError(f"{path}: not a safetensors file: {error}") from None
