"""Writing a net for PyTorch: a folder with model.py and model.safetensors, or a .pt2 of torch.export."""

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

from converters.common.net_with_weights import Subject
from converters.common.preprocessing import Preprocessing
from converters.pytorch_export.model_source import source_of
from converters.pytorch_export.trace_to_source import literal
from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.net.lowering_checks import results, sources
from prototxt_gen.runtime.torch_net import TorchNet

Array = np.ndarray[Any, Any]
PROTOTXT_KEY, EPS_KEY = "caffe.prototxt", "caffe.eps"
"""Metadata: the net as prototxt, and the eps of batch normalisations that the prototxt does not tell."""


def write_folder(subject: Subject, net: TorchNet, folder: Path) -> list[str]:
    """Write model.py and model.safetensors; return sentences on what is fixed in it."""
    from safetensors.torch import save_file

    made = source_of(subject, net, preprocessing_text(subject.preprocessing))
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(made.text, encoding="utf-8")
    save_file(made.state, folder / "model.safetensors", metadata(subject, net))
    return made.remarks


def metadata(subject: Subject, net: TorchNet) -> dict[str, str]:
    """Return what is kept beside the weights: enough to go back to Caffe, and the preprocessing."""
    from prototxt_gen.net.render import net_text

    own = {
        step.layer.name: eps for step in net.lowered_layers if (eps := getattr(step.module, "eps", None)) is not None
    }
    text = net_text(subject.net).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return {"format": "pt", PROTOTXT_KEY: text, EPS_KEY: json.dumps(own), **subject.preprocessing.metadata()}


def preprocessing_text(preprocessing: Preprocessing) -> str:
    """Return the constants that model.py begins with: how pixels become the input."""
    if not preprocessing:
        return ""
    lines = ["# The input is (pixel - MEAN) * SCALE, pixels from 0 to 255."]
    if preprocessing.mean_image is not None:
        lines[0] = "# The input is (pixel - mean image) * SCALE; the image is in model.safetensors' metadata."
    else:
        lines.append(f"MEAN = {literal(tuple(preprocessing.mean) or (0.0,))}")
    lines.append(f"SCALE = {preprocessing.scale!r}")
    if preprocessing.channel_order:
        lines.append(f'CHANNEL_ORDER = "{preprocessing.channel_order}"')
    return "\n".join(lines) + "\n"


def write_pt2(subject: Subject, net: TorchNet, path: Path) -> list[str]:
    """Export with torch.export, the batch open where it can be; return sentences on what is fixed."""
    examples = tuple(torch.zeros(subject.analysis.shapes[value]) for value in net.inputs)
    batch = examples[0].shape[0] if examples and examples[0].dim() else 0
    remarks: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what layers keep from run to run, such as priors once made
        exported = _export_open(net, examples, batch) if batch else None
        if exported is None:
            remarks.append("the batch is fixed: torch.export finds the net to go by it")
            exported = _export(net, examples)
    extra = {key: text for key, text in metadata(subject, net).items() if key != "format"}
    torch.export.save(exported, path, extra_files=extra)
    return remarks


def _export_open(net: TorchNet, examples: tuple[torch.Tensor, ...], batch: int) -> Any:
    """Export with two images, as torch takes a size of 1 for fixed; None where the net goes by the batch."""
    two = tuple(torch.zeros(2, *e.shape[1:]) if e.dim() and e.shape[0] == batch else e for e in examples)
    open_ = torch.export.Dim("N", min=1)
    axes = tuple({0: open_} if e.dim() and e.shape[0] == batch else None for e in examples)
    try:
        return torch.export.export(net, two, dynamic_shapes={"inputs": axes})
    except Exception:  # torch.export raises a dozen kinds, and the fixed batch comes next
        return None


def _export(net: TorchNet, examples: tuple[torch.Tensor, ...]) -> Any:
    try:
        return torch.export.export(net, examples)
    except Exception as error:  # torch.export raises a dozen kinds; what it says is all there is to tell
        open_ = [step.layer for step in net.lowered_layers if step.layer_type.sized_by_data]
        if open_:
            names = ", ".join(f"{layer.name!r} ({layer.type})" for layer in open_)
            why = f"how much layer {names} gives out shows only when it has run"
        else:
            why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UnsupportedError(
            f"{net.net.source or net.net.name}: torch.export cannot take it: {why}; the folder form can"
        ) from None


def load_folder(folder: Path) -> nn.Module:
    """Run a model.py that we wrote and return its net with weights."""
    spec = importlib.util.spec_from_file_location("converted_model", folder / "model.py")
    if spec is None or spec.loader is None:
        raise PrototxtGenError(f"{folder}: there is no model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: nn.Module = module.load(folder)
    return made


def load_pt2(path: Path) -> nn.Module:
    """Return the module of a .pt2."""
    made: nn.Module = torch.export.load(path).module()
    return made


def run_module(subject: Subject, module: nn.Module, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a written module; return the net's outputs by blob name."""
    fed = [torch.from_numpy(np.asarray(inputs[value.blob], order="C")) for value in sources(subject.net)]
    with torch.no_grad():
        made = module(*fed)
    tops = made if isinstance(made, (tuple, list)) else (made,)
    return {value.blob: top.detach().numpy() for value, top in zip(results(subject.net), tops, strict=True)}


def checked_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a .safetensors file. PrototxtGenError where it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise PrototxtGenError(f"{path}: not a safetensors file: {error}") from None
