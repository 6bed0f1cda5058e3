"""Predictors for converted files (.onnx, .pt2, folders); input shape and preprocessing come from their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from converters.common.loading_errors import translate_loading_errors
from converters.common.preprocessing import METADATA_KEY, Preprocessing
from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.common.optional_packages import need
from prototxt_gen.evaluate.predictors import ModulePredictor, OnnxPredictor, Predictor, main_output_of_prototxt
from prototxt_gen.ir import Shape
from prototxt_gen.net.lowering_checks import net_inputs
from prototxt_gen.net.prototxt_reader import parse_net

PROTOTXT_KEY = "caffe.prototxt"
"""Metadata key of the net's prototxt in PyTorch files."""


def is_converted(path: Path) -> bool:
    """Return whether the path is a converted model (.onnx, .pt2, or a folder with model.py) rather than a prototxt."""
    return path.suffix.lower() in (".onnx", ".pt2") or (path / "model.py").is_file()


def open_converted(path: Path, output: str = "") -> tuple[Predictor, Preprocessing]:
    """Return a converted model as a predictor, and the preprocessing in its metadata.

    `output` is the name of the output (ONNX only); default: that of the last layer. The model.py of a folder is
    executed. Raises PrototxtGenError if the file does not exist or is damaged.
    """
    if not path.exists():
        raise PrototxtGenError(f"{path} does not exist")
    with translate_loading_errors(path):
        return _open_file(path, output)


def _open_file(path: Path, output: str) -> tuple[Predictor, Preprocessing]:
    if path.suffix.lower() == ".onnx":
        predictor = OnnxPredictor(path, output)
        return predictor, preprocessing_from_metadata(predictor.session.get_modelmeta().custom_metadata_map)
    if output:
        raise PrototxtGenError(
            f"{path}: --output works only with an ONNX model or a prototxt; other files use that of the last layer"
        )
    return _open_torch(path)


def _open_torch(path: Path) -> tuple[Predictor, Preprocessing]:
    need("torch")
    import torch

    from converters.pytorch_export import output_files as torch_file

    metadata: dict[str, str] = dict.fromkeys((PROTOTXT_KEY, METADATA_KEY, torch_file.OUTPUTS_KEY), "")
    if path.is_dir():
        metadata = torch_file.read_safetensors_metadata(path / "model.safetensors")
        module = torch_file.load_folder(path)
    else:
        module = torch.export.load(path, extra_files=metadata).module()
    shape = _input_shape(path, metadata)
    outputs: list[str] = json.loads(metadata.get(torch_file.OUTPUTS_KEY) or "[]")  # older files lack them
    main_output = main_output_of_prototxt(metadata[PROTOTXT_KEY], str(path))
    index = outputs.index(main_output) if main_output in outputs else -1
    return ModulePredictor(path.name, module, shape, index), preprocessing_from_metadata(metadata)


def _input_shape(path: Path, metadata: Mapping[str, str]) -> Shape:
    """Return the input shape C×H×W according to the prototxt in the metadata."""
    if not metadata.get(PROTOTXT_KEY):
        raise PrototxtGenError(
            f"{path}: it does not contain its prototxt, which files from `prototxt-gen convert pytorch` do"
        )
    analysis = analyse(parse_net(metadata[PROTOTXT_KEY], str(path)))
    shapes = [analysis.shapes[value] for value in net_inputs(analysis.net)]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise UnsupportedError(f"{path}: a net with one input N×C×H×W is needed")
    return shapes[0][1:]


def preprocessing_from_metadata(metadata: Mapping[str, str]) -> Preprocessing:
    """Return the preprocessing in the metadata of a converted file (see `Preprocessing.metadata`)."""
    return Preprocessing.from_dict(json.loads(metadata.get(METADATA_KEY) or "{}"))
