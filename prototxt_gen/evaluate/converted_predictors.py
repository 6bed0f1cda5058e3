"""Files that were converted, as predictors: they carry what is needed to feed them, so they need no prototxt."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.common.loading_errors import translate_loading_errors
from converters.common.preprocessing import METADATA_KEY, Preprocessing
from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.common.optional_packages import need
from prototxt_gen.evaluate.predictors import ModulePredictor, OnnxPredictor, Predictor
from prototxt_gen.ir import Shape
from prototxt_gen.net.lowering_checks import sources
from prototxt_gen.net.prototxt_reader import parse_net

PROTOTXT_KEY = "caffe.prototxt"
"""The key under which PyTorch's files keep the net."""


def is_converted(path: Path) -> bool:
    """Whether this is an ONNX model, a .pt2, or a folder with model.py; what else there is, is a prototxt."""
    return path.suffix.lower() in (".onnx", ".pt2") or (path / "model.py").is_file()


def open_converted(path: Path, output: str = "") -> tuple[Predictor, Preprocessing]:
    """Return the model as a predictor, and the preprocessing that it carries.

    A folder's model.py is run, as importing it would.
    """
    if not path.exists():
        raise PrototxtGenError(f"{path} does not exist")
    with translate_loading_errors(path):
        return _open(path, output)


def _open(path: Path, output: str) -> tuple[Predictor, Preprocessing]:
    if path.suffix.lower() == ".onnx":
        made = OnnxPredictor(path, output)
        return made, preprocessing_from(made.session.get_modelmeta().custom_metadata_map)
    if output:
        raise PrototxtGenError(f"{path}: an output can be chosen in an ONNX model or a prototxt; this gives its last")
    return _open_torch(path)


def _open_torch(path: Path) -> tuple[Predictor, Preprocessing]:
    need("torch")
    import torch

    from converters.pytorch_export import output_files as torch_file

    metadata: dict[str, str] = dict.fromkeys((PROTOTXT_KEY, METADATA_KEY), "")
    if path.is_dir():
        metadata = torch_file.read_safetensors_metadata(path / "model.safetensors")
        module = torch_file.load_folder(path)
    else:
        module = torch.export.load(path, extra_files=metadata).module()
    return ModulePredictor(path.name, module, _input_of(path, metadata)), preprocessing_from(metadata)


def _input_of(path: Path, metadata: Mapping[str, str]) -> Shape:
    """Return C×H×W, as the prototxt inside says."""
    if not metadata.get(PROTOTXT_KEY):
        raise PrototxtGenError(f"{path}: it does not carry its prototxt; prototxt-gen convert pytorch writes it so")
    analysis = analyse(parse_net(metadata[PROTOTXT_KEY], str(path)))
    shapes = [analysis.shapes[value] for value in sources(analysis.net)]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise UnsupportedError(f"{path}: a net with one input N×C×H×W is needed")
    return shapes[0][1:]


def preprocessing_from(metadata: Mapping[str, str]) -> Preprocessing:
    """Return the preprocessing that a file carries (see `Preprocessing.metadata`)."""
    found: dict[str, Any] = json.loads(metadata.get(METADATA_KEY) or "{}")
    image = found.get("mean_image")
    mean_image = None
    if image:
        mean_image = np.frombuffer(base64.b64decode(image["float32_base64"]), "<f4").reshape(image["shape"])
    return Preprocessing(
        tuple(found.get("mean", ())), found.get("scale", 1.0), found.get("channel_order", ""), mean_image
    )
